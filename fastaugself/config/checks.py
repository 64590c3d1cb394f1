"""Checks of a configuration, all of them before any data is opened.

Every message ends with options that can be copied to the command line: "pass --a 1 --b 2, or --c 3" gives two
alternatives, the first of two options. tests/config/test_remedies.py takes each of them.
"""

from typing import TYPE_CHECKING

from fastaugself_kernels.params import default_blur_kernel

from ..errors import UsageError
from .aware_checks import check_aware, check_chunks
from .batch_size import batch_options

if TYPE_CHECKING:
    from .schema import Pretrain


def check_combinations(config: "Pretrain") -> None:
    """Raises UsageError for options that do not work together, with options to pass instead."""
    check_processes(config, 1)
    if config.data.decode != "cpu" and config.data.source == "ffcv":
        raise UsageError(
            f"--data.source ffcv decodes on the CPU, not with --data.decode {config.data.decode}; pass "
            "--data.source native, or --data.decode cpu"
        )
    _check_views(config)
    _check_split(config)
    check_aware(config)
    config.method.check(config.batch_size)


def check_processes(config: "Pretrain", processes: int) -> None:
    """Raises UsageError where the batch cannot be divided among processes, micro-batches and batch-norm groups.

    With one process the conditions are those that any number of processes needs.
    """
    if config.batch_size % processes:
        raise UsageError(
            f"--batch-size {config.batch_size} must be a multiple of the number of processes {processes}; "
            f"pass {batch_options(config, processes)}"
        )
    if config.accumulate > 1:
        _check_accumulation(config, processes)
    if config.backbone.batch_norm == "split":
        _check_split_batch_norm(config, processes)
    check_chunks(config, processes)


def check_photos(config: "Pretrain", processes: int, photos: int) -> None:
    """Raises UsageError where the global batch is larger than the training set of this many photos."""
    if config.batch_size <= photos:
        return
    options = batch_options(config, processes, photos=photos)
    fewer = " or fewer processes" if processes > 1 else ""
    instead = f"pass {options}, or more photos" if options else f"use more photos{fewer}"
    raise UsageError(f"--batch-size {config.batch_size} is larger than the data set of {photos} photos; {instead}")


def _check_accumulation(config: "Pretrain", processes: int) -> None:
    """Refuses gradient accumulation where the mean over micro-batches is not the gradient of the whole batch."""
    count = config.accumulate
    if config.base_loss and not config.method.per_sample_loss:
        raise UsageError(
            f"--accumulate {count}: the loss of {config.method.title} compares all samples of a batch, so accumulated "
            "gradients would differ from those of the whole batch; pass --accumulate 1, and if memory is short use "
            "more processes or a smaller batch"
        )
    for name, options in config.objectives.items():
        if options.per_sample_loss:
            continue
        if name == "augself":
            raise UsageError(
                f"--accumulate {count}: the published solarize loss compares all samples of a batch; pass "
                "--augself.mode fixed, or --accumulate 1"
            )
        raise UsageError(
            f"--accumulate {count}: the loss of {options.title} compares all samples of a batch, so accumulated "
            f"gradients would differ from those of the whole batch; pass --accumulate 1, or --{name}.weight 0"
        )
    parts = processes * count
    if config.batch_size % parts or config.batch_size < 2 * parts:
        raise UsageError(
            f"--batch-size {config.batch_size} must be a multiple of {parts} (processes x --accumulate {count}), "
            f"and at least twice that; pass {batch_options(config, processes)}"
        )


def _check_split_batch_norm(config: "Pretrain", processes: int) -> None:
    size = config.backbone.bn_group_size
    micro_batch = config.batch_size // processes // config.accumulate
    if config.backbone.name.startswith("timm:"):
        raise UsageError(
            f"--backbone.batch-norm split needs a ResNet of this project, got --backbone.name {config.backbone.name}; "
            "pass --backbone.batch-norm plain"
        )
    if size < 2 or micro_batch % size:
        divisors = [d for d in range(2, micro_batch + 1) if micro_batch % d == 0]
        nearest = min(divisors, key=lambda d: abs(d - size), default=0)
        instead = f"--backbone.bn-group-size {nearest}" if nearest else batch_options(config, processes)
        raise UsageError(
            f"--backbone.bn-group-size {size} must be at least 2 and divide the {micro_batch} samples of a forward "
            f"pass; pass {instead}"
        )


def _check_views(config: "Pretrain") -> None:
    title = config.method.title
    if config.view2 is not None and config.view2.size != config.view.size:
        size, size2 = config.view.size, config.view2.size
        raise UsageError(
            f"--view.size {size} and --view2.size {size2} must be equal; pass --view2.size {size}, or "
            f"--view.size {size2}"
        )
    if config.num_local_crops < 0:
        raise UsageError(
            f"--num-local-crops must be at least 0, got {config.num_local_crops}; pass --num-local-crops 0"
        )
    if config.num_local_crops and not config.method.multi_crop:
        raise UsageError(
            f"--num-local-crops {config.num_local_crops}: {title} takes no local crops; pass --num-local-crops 0"
        )
    sizes = {"--view.size": config.view.size}
    if config.num_local_crops:
        sizes["--local-crop.size"] = config.local_crop.size
    _check_schedule(config)
    option, smallest = min(sizes.items(), key=lambda item: item[1])
    kernel = config.augment.blur_kernel
    if kernel is not None and (kernel < 1 or kernel % 2 == 0 or kernel // 2 >= smallest):
        raise UsageError(
            f"--augment.blur-kernel must be odd and below twice {option} {smallest}, got {kernel}; "
            f"pass --augment.blur-kernel {default_blur_kernel(smallest)}, the default for this size"
        )


def _check_schedule(config: "Pretrain") -> None:
    """Refuses a schedule of sizes that is not one, or that an objective cannot have."""
    sizes = config.sizes
    for name, options in config.objectives.items():
        if len(sizes.shares()) > 1 and options.fixed_size:
            raise UsageError(
                f"--view.schedule {' '.join(config.size_schedule)}: {options.title} needs views of one size; pass "
                f"--view.schedule 0:{sizes.full}, or --{name}.weight 0"
            )


def _check_split(config: "Pretrain") -> None:
    """Refuses Fast-MoCo's parts of views for backbones and sizes that cannot have them."""
    split, size = getattr(config.method, "split", 1), config.view.size
    if split == 1 or not config.base_loss:
        return
    if config.backbone.name.startswith("timm:"):
        raise UsageError(
            f"--method.split {split} needs a ResNet of this project, got --backbone.name {config.backbone.name}; pass "
            "--method.split 1"
        )
    if size % split:
        other = -(-size // split) * split
        both = f"--view.size {other}" + (f" --view2.size {other}" if config.view2 is not None else "")
        raise UsageError(f"--method.split {split} does not divide --view.size {size}; pass {both}, or --method.split 1")
    for stage in config.sizes.stages:
        if stage.size % split:
            raise UsageError(
                f"--method.split {split} does not divide the {stage.size} px of --view.schedule; pass "
                f"--method.split 1, or --view.schedule 0:{size}"
            )
