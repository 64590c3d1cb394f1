"""What a report says in words: what a run shows and does not show, and what to do next."""

import re
from pathlib import Path

from ..config.schema import Pretrain
from ..export.backbone import WEIGHTS
from ..export.card import loading
from ..html.page import escape

ABOUT_LOSSES = (
    "An AugSelf loss below its dashed line shows that the features carry how the views were made: where they were cut "
    "out, and how their colours were changed. That is what AugSelf asks for, and all that this loss shows."
)
ABOUT_TRANSFER = (
    "It does not show that the features transfer better. That takes a downstream comparison with a run that differs "
    "only in <code>--augself.crop 0 --augself.color 0</code>, over several seeds."
)
PHOTOS = (
    "The photos come with scikit-image (astronaut, hubble and rocket in the public domain; chelsea, coffee and retina "
    "CC0) and scikit-learn (china by danielbuechele and flower by vultilion, both CC BY 2.0, cropped and their hue "
    "rotated here)."
)
ABOUT_ALARMS = "k-NN and the effective rank are cheap alarms while training, not results to compare methods by."


def caveats(config: Pretrain, *, is_demo: bool, untrained_knn: float | None) -> str:
    """The part that keeps readers from concluding too much. untrained_knn: accuracy before the first step, if known."""
    points = [ABOUT_LOSSES] if config.augself.weights else []
    if is_demo:
        points.append(
            "Eight photos prove nothing about transfer, and the validation photos are other crops of the same eight."
        )
        before = "" if untrained_knn is None else f" The untrained network already had {untrained_knn:.0%}."
        points.append(f"k-NN among eight photos is easy: colours and textures alone nearly tell them apart.{before}")
        points.append(
            "The probes ask for factors that every crop was made with: which part of the photo it shows, how large, "
            "and a rotation of its hue. In a prototype of this demo they did not differ from those of plain MoCo v2, "
            "so do not read them as an effect of AugSelf."
        )
        points.append(PHOTOS)
    else:
        points.append(ABOUT_TRANSFER)
        if config.data.val is not None:
            points.append(ABOUT_ALARMS)
    return "<h2>What this shows, and what it does not</h2>\n<ul>" + "".join(f"<li>{p}</li>" for p in points) + "</ul>"


def next_steps(config: Pretrain, run: Path, *, is_demo: bool) -> str:
    """Commands that go on from here, and the lines that load the weights."""
    parts = ['<h2 id="next">What to do next</h2>']
    if is_demo:
        parts.append("<h3>Your own photos</h3>" + _block(OWN_PHOTOS))
        parts.append("<h3>ImageNet</h3>" + _block(IMAGENET))
    parts.append(
        "<h3>Go on with this run</h3>\n<p>The command that started it resumes it: after a kill or Ctrl-C, or after a "
        "<code>--max-steps</code> that ended it early. A finished run only writes its export and report again.</p>"
    )
    parts.append("<h3>Load the weights</h3>" + _block(loading(config, run / "export" / WEIGHTS)))
    return "\n".join(parts)


OWN_PHOTOS = """\
# one folder, or one folder a class; a small ResNet on 96 px views
python recipes/imagenet_moco_augself.py --data.train path/to/photos --run runs/mine \\
    --backbone.name resnet18 --view.size 96 --augment.blur-kernel 9 --method.queue 4096 --epochs 100"""
IMAGENET = """\
fastaugself write imagenet/train train.beton --max-side 500
fastaugself write imagenet/val val.beton --max-side 500
torchrun --nproc-per-node=8 recipes/imagenet_moco_augself.py --data.train train.beton --data.val val.beton"""


def _block(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def method_name(config: Pretrain) -> str:
    """The method and what is added to it, as they are called in prose."""
    if config.augself_only:
        return "AugSelf alone"
    return (
        base_method(config)
        + (" + CASSLE" if config.cassle.condition_dim else "")
        + (" + AugSelf" if config.augself.weights else "")
    )


def base_method(config: Pretrain) -> str:
    """The method alone, as it is called in prose."""
    return config.method.title


def pretty(name: str) -> str:
    """A backbone's name in prose."""
    return re.sub(r"^resnet(\d+)$", r"ResNet-\1", name.removeprefix("timm:"))


def compare(value: float, nothing: float) -> str:
    """'34% below', '2% above' or 'at'."""
    change = value / nothing - 1 if nothing else 0.0
    return "at" if abs(change) < 0.005 else f"{abs(change):.0%} {'below' if change < 0 else 'above'}"
