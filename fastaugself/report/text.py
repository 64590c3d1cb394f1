"""Texts of a report: what the results do and do not show, and names for prose."""

import re

from ..aware import AWARE, AugSelf
from ..config.schema import Pretrain
from .next_steps import baseline_options
from .words import HEADS

ABOUT_LOSSES = (
    "An AugSelf loss below its baseline shows that the features contain information about the augmentations: where the "
    "views were cropped, and how their colours were changed. This is AugSelf's objective, and all that this loss shows."
)
ABOUT_TRANSFER = (
    "It does not show that the features transfer better. For that, compare downstream results with a run that differs "
    "only in <code>{without}</code>, over several seeds."
)
ABOUT_THE_BASE = (
    "No loss shows how well the features transfer. For that, evaluate them on other data, and compare methods over "
    "several seeds."
)
PHOTOS = (
    "The photos come with scikit-image (astronaut, hubble and rocket in the public domain; chelsea, coffee and retina "
    "CC0) and scikit-learn (china by danielbuechele and flower by vultilion, both CC BY 2.0, cropped and their hue "
    "rotated here)."
)
CHECK_TITLES = {  # of the scores in evaluations.jsonl, beside those that begin with r2_
    "knn": "k-NN accuracy",
    "linear": "Linear probe",
    "rankme": "Effective rank",
    "lidar": "LiDAR",
    "alpha": "alpha-ReQ",
}
ABOUT_CHECKS = "k-NN and effective rank are sanity checks during training, not results to compare methods by."


def caveats(config: Pretrain, *, is_demo: bool, untrained_knn: float | None) -> str:
    """The section on what the results do and do not show. untrained_knn: accuracy before the first step, if known."""
    points = [ABOUT_LOSSES] if config.augself.weights else []
    if is_demo:
        points.append(
            "Eight photos say nothing about transfer, and the validation photos are other crops of the same eight."
        )
        before = "" if untrained_knn is None else f" Before training the network already had {untrained_knn:.0%}."
        points.append(f"k-NN on eight photos is easy: colours and textures alone almost separate them.{before}")
        points.append(
            "The probes predict how each crop was made: its position in the photo, its size, and its hue rotation. In "
            "a prototype of this demo they did not differ from those of plain MoCo v2, so do not read them as an "
            "effect of AugSelf."
        )
        points.append(PHOTOS)
    else:
        without = " ".join(baseline_options(config))
        points.append(ABOUT_TRANSFER.format(without=without) if without else ABOUT_THE_BASE)
        if config.data.val is not None:
            points.append(ABOUT_CHECKS)
    return "<h2>What this shows and what it does not</h2>\n<ul>" + "".join(f"<li>{p}</li>" for p in points) + "</ul>"


def method_name(config: Pretrain, *, heads: bool = False) -> str:
    """The name of the method with its augmentation-aware objectives, for prose. heads: with the heads of AugSelf."""
    titles = [options.title for options in config.objectives.values()]
    if heads and "augself" in config.objectives:
        names = ", ".join(HEADS[name] for name in config.augself.weights)
        titles = [f"{title} ({names})" if title == AugSelf.title else title for title in titles]
    if not config.base_loss:
        return " + ".join(titles) + " alone"
    conditioned = ["CASSLE"] if config.cassle.condition_dim else []
    conditioned += ["conditional predictor"] if config.predictor.enabled else []
    return " + ".join([base_method(config), *conditioned, *titles])


def loss_title(name: str, *, long: bool = False) -> str:
    """The title of an auxiliary loss. name: as in `metrics.jsonl`, without "loss_". long: with "AugSelf"."""
    if name in HEADS:
        return f"{'AugSelf ' if long else ''}{HEADS[name]} loss"
    return f"{metric_title(name)} loss"


def metric_title(name: str) -> str:
    """The title of a metric: "E-SSL accuracy" for "essl_accuracy"; those of no objective have their own name."""
    kind, _, detail = name.partition("_")
    return f"{AWARE[kind].title} {detail.replace('_', ' ')}".strip() if kind in AWARE else name


def factor_title(name: str) -> str:
    """The title of the probe of a known factor of the photos. name: as in `evaluations.jsonl`, "r2_centre_x"."""
    return "Probe of " + name.removeprefix("r2_").replace("_", " ").replace("centre", "the crop's centre")


def check_title(name: str) -> str:
    """The title of a score of the checks. name: as in `evaluations.jsonl`; of a `--log.check`, "flowers/knn"."""
    check, _, score = name.rpartition("/")
    title = CHECK_TITLES.get(score) or (factor_title(score) if score.startswith("r2_") else score)
    return f"{check}: {title}" if check else title


def base_method(config: Pretrain) -> str:
    """The name of the base method, for prose."""
    return config.method.title


def pretty(name: str) -> str:
    """The name of a backbone, for prose."""
    return re.sub(r"^resnet(\d+)$", r"ResNet-\1", name.removeprefix("timm:"))


def compare(value: float, baseline: float) -> str:
    """The relation of a loss to its baseline in words: '34% below', '2% above' or 'at'."""
    change = value / baseline - 1 if baseline else 0.0
    return "at" if abs(change) < 0.005 else f"{abs(change):.0%} {'below' if change < 0 else 'above'}"
