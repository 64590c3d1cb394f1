"""Options that make no sense together, refused before any data is opened."""

from typing import TYPE_CHECKING

from fastaugself_kernels import ViewPolicy

from .errors import UsageError

if TYPE_CHECKING:
    from .config import Pretrain

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
    _check_views(config)
    varying = {name for policy in config.policies for name in varies(policy)}
    for name, weight in config.augself.weights.items():
        if name not in varying:
            raise UsageError(
                f"--augself.{name} {weight:g} needs {_REMEDIES[name]} too, or --augself.{name} 0 for no such loss"
            )
    if config.cassle.columns:
        _check_cassle(config, varying)
    if config.ss_only:
        _check_ss_only(config)
    config.method.check(config.batch_size)


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
    if config.small_views < 0:
        raise UsageError(f"--small-views must be at least 0, got {config.small_views}")
    if config.small_views and not config.method.multi_crop:
        raise UsageError(f"--small-views {config.small_views}: {title} takes no small views; pass --small-views 0")
    sizes = {"--view.size": config.view.size}
    if config.small_views:
        sizes["--small-view.size"] = config.small_view.size
    option, smallest = min(sizes.items(), key=lambda item: item[1])
    kernel = config.augment.blur_kernel
    if kernel < 1 or kernel % 2 == 0 or kernel // 2 >= smallest:
        raise UsageError(
            f"--augment.blur-kernel must be odd and below twice {option} {smallest}, got {kernel}; "
            f"pass --augment.blur-kernel {max(1, smallest // 10 * 2 + 1)}"
        )


def _check_cassle(config: "Pretrain", varying: set[str]) -> None:
    inject, title = config.cassle.inject, config.method.title
    if not config.method.conditional:
        raise UsageError(
            f"--cassle.inject {inject}: {title} training has no projector to condition; pass --cassle.inject none"
        )
    idle = [part for part in config.cassle.include if _CONDITIONS.get(part, part) not in varying]
    if idle:
        left = [part for part in config.cassle.include if part not in idle]
        instead = f"--cassle.include {' '.join(left)}" if left else "--cassle.inject none"
        raise UsageError(
            f"--cassle.include {' '.join(idle)}: these views never differ in it; pass {instead}, or views that do"
        )


def _check_ss_only(config: "Pretrain") -> None:
    if not config.augself.weights:
        raise UsageError("--ss-only trains on AugSelf's losses alone, and all are off; pass --augself.crop 0.5 too")
    if config.cassle.columns:
        raise UsageError(
            f"--ss-only has no projector to condition, so --cassle.inject {config.cassle.inject} would do nothing; "
            f"pass --cassle.inject none"
        )
    if config.small_views:
        raise UsageError(f"--ss-only takes no small views, so pass --small-views 0 instead of {config.small_views}")
