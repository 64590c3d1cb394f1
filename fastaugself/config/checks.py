"""Checks of a configuration, all of them before any data is opened.

Every message ends with options that can be copied to the command line: "pass --a 1 --b 2, or --c 3" gives two
alternatives, the first of two options. tests/config/test_remedies.py takes each of them.
"""

from typing import TYPE_CHECKING

from torch import nn

from fastaugself_kernels import ViewPolicy
from fastaugself_kernels.params import default_blur_kernel

from ..aware.augself import HEADS as AUGSELF_HEADS
from ..aware.base import AwareConfig, Setting
from ..errors import UsageError
from ..models.resnet import STAGES
from .batch_size import batch_options

if TYPE_CHECKING:
    from .schema import Pretrain

# Augmentations, and options with which they differ from view to view.
_VARIED = {
    "crop": ("random crops", "--view.scale 0.2 1.0"),
    "color": ("colour jitter", "--view.jitter 0.8 --view.brightness 0.4"),
    "flip": ("flipped views", "--view.flip 0.5"),
    "blur": ("blurred views", "--view.blur 0.5"),
    "rotation": ("rotated views", "--view.rotation 0.5"),
    "solarize": ("solarized views", "--view.solarize 0.5"),
    "grayscale": ("gray views", "--view.gray 0.2"),
}
_AUGMENTATIONS = {
    "color_diff": "color",
    "jitter": "color",
    "order": "color",
}  # descriptors of CASSLE that are named unlike their augmentation


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
    varying = {name for policy in config.policies for name in varies(policy)}
    if config.cassle.condition_dim:
        _check_cassle(config, varying)
    if config.predictor.enabled:
        _check_predictor(config, varying)
    _check_objectives(config, varying)
    if not config.base_loss:
        _check_no_base_loss(config, varying)
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


def varies(policy: ViewPolicy) -> set[str]:
    """Names of the augmentations whose parameters vary between samples under this policy."""
    strengths = (policy.brightness, policy.contrast, policy.saturation, policy.hue)
    varying = {
        "crop": policy.scale[0] < 1,
        "color": policy.jitter > 0 and any(strengths),
        "flip": 0 < policy.flip < 1,
        "blur": policy.blur > 0,
        "grayscale": policy.gray > 0,
        "rotation": policy.rotation > 0,
        "solarize": policy.solarize > 0,
    }
    return {name for name, varies_here in varying.items() if varies_here}


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


def _check_predictor(config: "Pretrain", varying: set[str]) -> None:
    option = f"--predictor.conditioning {config.predictor.conditioning}"
    if not (config.base_loss and config.method.has_predictor):
        why = f"{config.method.title} has no predictor" if config.base_loss else "without a base loss there is none"
        raise UsageError(f"{option}: {why}; pass --predictor.conditioning none")
    if config.num_local_crops:
        raise UsageError(
            f"{option}: the predictor reads the difference to the other global view, which local crops do not have; "
            "pass --num-local-crops 0, or --predictor.conditioning none"
        )
    constant = [name for name in config.predictor.include if _AUGMENTATIONS.get(name, name) not in varying]
    if constant:
        left = [name for name in config.predictor.include if name not in constant]
        instead = f"--predictor.include {' '.join(left)}" if left else "--predictor.conditioning none"
        raise UsageError(
            f"--predictor.include {' '.join(constant)}: all views have the same augmentation there; pass {instead}"
        )


def _check_cassle(config: "Pretrain", varying: set[str]) -> None:
    conditioning, title = config.cassle.conditioning, config.method.title
    if not config.method.has_projector:
        raise UsageError(
            f"--cassle.conditioning {conditioning}: {title} has no projector to condition; pass "
            "--cassle.conditioning none"
        )
    constant = [name for name in config.cassle.include if _AUGMENTATIONS.get(name, name) not in varying]
    if constant:
        left = [name for name in config.cassle.include if name not in constant]
        instead = f"--cassle.include {' '.join(left)}" if left else "--cassle.conditioning none"
        raise UsageError(
            f"--cassle.include {' '.join(constant)}: all views have the same augmentation there; pass {instead}"
        )


def _check_objectives(config: "Pretrain", varying: set[str]) -> None:
    """Refuses objectives that cannot be trained with these views, this method or this backbone."""
    setting = _setting(config)
    kinds = [options.name for options in config.aware]
    for name in kinds:
        if kinds.count(name) > 1 or name == "augself":
            raise UsageError(f"Pretrain.aware takes one objective of each kind and AugSelf as augself=, got {kinds}")
    for name, options in config.objectives.items():
        for augmentation, option in options.augmentations().items():
            if augmentation not in varying:
                what, instead = _VARIED[augmentation]
                raise UsageError(f"{option} needs {what}; pass {instead}{_without(config, options, augmentation)}")
        if options.needs_projector and not (config.base_loss and config.method.has_projector):
            why = f"{config.method.title} has none" if config.base_loss else f"--{name}.only trains without one"
            instead = f"--{name}.weight 0" if config.base_loss else f"--{name}.no-only"
            raise UsageError(
                f"--{name}.weight {options.weight:g}: {options.title} needs the projector of a base method, {why}; "
                f"pass {instead}"
            )
        options.check(setting)
    shares = {name: options.share for name, options in config.objectives.items() if options.share is not None}
    if len(set(shares.values())) > 1:
        first, second = list(shares)[:2]
        raise UsageError(
            f"--{first}.weight and --{second}.weight share the parameters of the views in different ways; pass "
            f"--{first}.weight 0, or --{second}.weight 0"
        )
    _check_layers(config)


def _setting(config: "Pretrain") -> Setting:
    return Setting(
        config.method,
        config.backbone,
        config.policies,
        batch_size=config.batch_size,
        base_loss=config.base_loss,
        conditioned=config.cassle.condition_dim > 0,
    )


def _without(config: "Pretrain", options: AwareConfig, augmentation: str) -> str:
    """The alternative that turns off what needs an augmentation, "" if nothing would be left to train."""
    if options.name == "augself":
        left = len(config.objectives) > 1 or len(options.weights) > 1 or config.base_loss
        return f", or --augself.{augmentation} 0" if left else ""
    return f", or --{options.name}.weight 0" if len(config.objectives) > 1 or config.base_loss else ""


def _check_layers(config: "Pretrain") -> None:
    """Refuses layers that a ResNet does not have; those of timm's models are checked when the backbone is built."""
    for name, options in config.objectives.items():
        if not options.layers:
            continue
        if config.backbone.patch_drop:
            raise UsageError(
                f"--{name}.layer {options.layers[0]} needs the tokens of the whole image, got --backbone.patch-drop "
                f"{config.backbone.patch_drop}; pass --backbone.patch-drop 0"
            )
        if not config.backbone.name.startswith("timm:"):
            known = STAGES
            for layer in options.layers:
                if layer not in known:
                    raise UsageError(
                        f"--{name}.layer {layer}: {config.backbone.name} has no such layer, its layers are "
                        f"{', '.join(known)}; pass --{name}.layer {known[2]}"
                    )
        if config.base_loss and getattr(config.method, "shuffle", False):
            raise UsageError(
                f"--{name}.layer {options.layers[0]}: with --method.shuffle the views of a process pass through the "
                "momentum encoder of others, which returns their last features only; pass --method.no-shuffle"
            )


def _check_no_base_loss(config: "Pretrain", varying: set[str]) -> None:
    alone = next(options for options in (config.augself, *config.aware) if options.only)
    only = alone.name
    if not config.objectives:
        if only != "augself":
            raise UsageError(
                f"--{only}.only trains on {alone.title} alone, and its weight is 0; pass --{only}.weight "
                f"{getattr(type(alone), 'weight', 1.0):g}"
            )
        name = next((name for name in AUGSELF_HEADS if name in varying), None)
        instead = f"--augself.{name} 0.5" if name else f"--augself.crop 0.5 {_VARIED['crop'][1]}"
        raise UsageError(
            f"--augself.only trains on AugSelf's losses alone, and all their weights are 0; pass {instead}"
        )
    if config.cassle.condition_dim:
        raise UsageError(
            f"--{only}.only has no projector that --cassle.conditioning {config.cassle.conditioning} could act on; "
            "pass --cassle.conditioning none"
        )
    if config.num_local_crops:
        raise UsageError(
            f"--{only}.only takes no local crops, got --num-local-crops {config.num_local_crops}; pass "
            "--num-local-crops 0"
        )


def check_backbone(config: "Pretrain", backbone: nn.Module) -> None:
    """Raises UsageError for a backbone that an objective cannot use. backbone: built, on any device."""
    for options in config.objectives.values():
        options.check_backbone(backbone, _setting(config))


def check_chunks(config: "Pretrain", processes: int) -> None:
    """Raises UsageError where chunks of samples with shared parameters do not divide the batch of a process."""
    own = config.batch_size // processes // config.accumulate
    shares = [(name, options.share) for name, options in config.objectives.items()]
    shares += [(name, request.share) for name, wanted in config.requests.items() for request in wanted]
    for name, share in shares:
        if share is not None and share.chunk > 0 and own % share.chunk:
            raise UsageError(
                f"--{name}.weight: {config.objectives[name].title} shares parameters in chunks of {share.chunk} "
                f"samples, which do not divide the {own} samples of a process; pass --batch-size "
                f"{-(-own // share.chunk) * share.chunk * processes * config.accumulate}"
            )
