"""Checks of what learns from the augmentation parameters: that the views, the method and the backbone suit it.

Messages as in `checks`.
"""

from typing import TYPE_CHECKING

from torch import nn

from fastaugself_kernels import ViewPolicy

from ..aware.augself import HEADS as AUGSELF_HEADS
from ..aware.base import AwareConfig, Setting
from ..errors import UsageError
from ..models.resnet import STAGES

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


def check_aware(config: "Pretrain") -> None:
    """Raises UsageError where an objective, a conditioned projector or a predictor cannot be trained as configured."""
    varying = {name for policy in config.policies for name in varies(policy)}
    if config.cassle.condition_dim:
        _check_cassle(config, varying)
    if config.predictor.enabled:
        _check_predictor(config, varying)
    _check_objectives(config, varying)
    if not config.base_loss:
        _check_no_base_loss(config, varying)


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
    _check_include("predictor", config.predictor.include, varying)


def _check_cassle(config: "Pretrain", varying: set[str]) -> None:
    conditioning, title = config.cassle.conditioning, config.method.title
    if not config.method.has_projector:
        raise UsageError(
            f"--cassle.conditioning {conditioning}: {title} has no projector to condition; pass "
            "--cassle.conditioning none"
        )
    _check_include("cassle", config.cassle.include, varying)


def _check_include(part: str, include: tuple[str, ...], varying: set[str]) -> None:
    """Refuses descriptors of augmentations that are the same in all views. part: of the configuration."""
    constant = [name for name in include if _AUGMENTATIONS.get(name, name) not in varying]
    if constant:
        left = [name for name in include if name not in constant]
        instead = f"--{part}.include {' '.join(left)}" if left else f"--{part}.conditioning none"
        raise UsageError(
            f"--{part}.include {' '.join(constant)}: all views have the same augmentation there; pass {instead}"
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
