"""Checks of a configuration, all of them before any data is opened."""

from typing import TYPE_CHECKING

from fastaugself_kernels import ViewPolicy
from fastaugself_kernels.params import default_blur_kernel

from ..errors import UsageError

if TYPE_CHECKING:
    from .schema import Pretrain

# What varies from view to view, and the options that make it vary.
_REMEDIES = {
    "crop": "random crops; pass --view.scale 0.2 1.0",
    "color": "colour jitter; pass --view.jitter 0.8 --view.brightness 0.4",
    "flip": "flipped views; pass --view.flip 0.5",
    "blur": "blurred views; pass --view.blur 0.5",
    "rotation": "rotated views; pass --view.rotation 0.5",
    "solarize": "solarized views; pass --view.solarize 0.5",
}
_CONDITIONS = {"color_diff": "color"}  # parts of CASSLE's condition that another augmentation makes


def check_combinations(config: "Pretrain") -> None:
    """Raises UsageError that names the options, and what to pass instead."""
    check_processes(config, 1)
    _check_views(config)
    varying = {name for policy in config.policies for name in varies(policy)}
    for name, weight in config.augself.weights.items():
        if name not in varying:
            raise UsageError(
                f"--augself.{name} {weight:g} needs {_REMEDIES[name]} too, or --augself.{name} 0 for no such loss"
            )
    if config.cassle.condition_dim:
        _check_cassle(config, varying)
    if config.augself_only:
        _check_augself_only(config)
    config.method.check(config.batch_size)


def check_processes(config: "Pretrain", processes: int) -> None:
    """Raises UsageError where the batch cannot be divided among processes, micro-batches and batch-norm groups.

    With one process the conditions are those that any number of processes needs.
    """
    if config.batch_size % processes:
        raise UsageError(
            f"--batch-size {config.batch_size} must be a multiple of the number of processes {processes}; "
            f"pass --batch-size {-(-config.batch_size // processes) * processes}"
        )
    if config.accumulate > 1:
        _check_accumulation(config, processes)
    if config.backbone.batch_norm == "split":
        micro_batch = config.batch_size // processes // config.accumulate
        _check_split_batch_norm(config, micro_batch)


def _check_accumulation(config: "Pretrain", processes: int) -> None:
    """Refuses gradient accumulation where the mean over micro-batches is not the gradient of the whole batch."""
    count = config.accumulate
    if not (config.augself_only or config.method.per_sample_loss):
        raise UsageError(
            f"--accumulate {count}: the loss of {config.method.title} compares all samples of a batch, so accumulated "
            "gradients would differ from those of the whole batch; pass --accumulate 1, and more processes or a "
            "smaller --batch-size"
        )
    if config.augself.solarize > 0 and config.augself.mode == "published":
        raise UsageError(
            f"--accumulate {count}: the published solarize loss compares all samples of a batch; pass "
            "--augself.mode fixed, or --accumulate 1"
        )
    parts = processes * count
    if config.batch_size % parts or config.batch_size < 2 * parts:
        raise UsageError(
            f"--batch-size {config.batch_size} must be a multiple of {parts} (processes x --accumulate {count}), "
            f"and at least twice that; pass --batch-size {max(2, -(-config.batch_size // parts)) * parts}"
        )


def _check_split_batch_norm(config: "Pretrain", micro_batch: int) -> None:
    size = config.backbone.bn_group_size
    if config.backbone.name.startswith("timm:"):
        raise UsageError(
            f"--backbone.batch-norm split needs a ResNet of this project, got --backbone.name {config.backbone.name}; "
            "pass --backbone.batch-norm plain"
        )
    if size < 2 or micro_batch % size:
        divisors = [d for d in range(2, micro_batch + 1) if micro_batch % d == 0]
        nearest = min(divisors, key=lambda d: abs(d - size), default=0)
        instead = f"pass --backbone.bn-group-size {nearest}" if nearest else "pass a larger --batch-size"
        raise UsageError(
            f"--backbone.bn-group-size {size} must be at least 2 and divide the {micro_batch} samples of a forward "
            f"pass; {instead}"
        )


def varies(policy: ViewPolicy) -> set[str]:
    """The augmentations that a policy draws differently from sample to sample."""
    strengths = (policy.brightness, policy.contrast, policy.saturation, policy.hue)
    drawn = {
        "crop": policy.scale[0] < 1,
        "color": policy.jitter > 0 and any(strengths),
        "flip": 0 < policy.flip < 1,
        "blur": policy.blur > 0,
        "grayscale": policy.gray > 0,
        "rotation": policy.rotation > 0,
        "solarize": policy.solarize > 0,
    }
    return {name for name, drawn_differently in drawn.items() if drawn_differently}


def _check_views(config: "Pretrain") -> None:
    title = config.method.title
    if config.view2 is not None and config.view2.size != config.view.size:
        raise UsageError(f"--view.size {config.view.size} and --view2.size {config.view2.size} must be equal")
    if config.num_local_crops < 0:
        raise UsageError(f"--num-local-crops must be at least 0, got {config.num_local_crops}")
    if config.num_local_crops and not config.method.multi_crop:
        raise UsageError(
            f"--num-local-crops {config.num_local_crops}: {title} takes no local crops; pass --num-local-crops 0"
        )
    sizes = {"--view.size": config.view.size}
    if config.num_local_crops:
        sizes["--local-crop.size"] = config.local_crop.size
    option, smallest = min(sizes.items(), key=lambda item: item[1])
    kernel = config.augment.blur_kernel
    if kernel is not None and (kernel < 1 or kernel % 2 == 0 or kernel // 2 >= smallest):
        raise UsageError(
            f"--augment.blur-kernel must be odd and below twice {option} {smallest}, got {kernel}; "
            f"pass --augment.blur-kernel {default_blur_kernel(smallest)}, the default for this size"
        )


def _check_cassle(config: "Pretrain", varying: set[str]) -> None:
    conditioning, title = config.cassle.conditioning, config.method.title
    if not config.method.has_projector:
        raise UsageError(
            f"--cassle.conditioning {conditioning}: {title} has no projector to condition; pass "
            "--cassle.conditioning none"
        )
    idle = [part for part in config.cassle.include if _CONDITIONS.get(part, part) not in varying]
    if idle:
        left = [part for part in config.cassle.include if part not in idle]
        instead = f"--cassle.include {' '.join(left)}" if left else "--cassle.conditioning none"
        raise UsageError(
            f"--cassle.include {' '.join(idle)}: these views never differ in it; pass {instead}, or views that do"
        )


def _check_augself_only(config: "Pretrain") -> None:
    if not config.augself.weights:
        raise UsageError(
            "--augself-only trains on AugSelf's losses alone, and all are off; pass --augself.crop 0.5 too"
        )
    if config.cassle.condition_dim:
        raise UsageError(
            f"--augself-only has no projector to condition, so --cassle.conditioning {config.cassle.conditioning} "
            "would do nothing; pass --cassle.conditioning none"
        )
    if config.num_local_crops:
        raise UsageError(
            f"--augself-only takes no local crops, so pass --num-local-crops 0 instead of {config.num_local_crops}"
        )
