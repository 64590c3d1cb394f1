"""The section of a report with commands for what to do next; each can be copied and works where the run was started."""

import inspect
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config.schema import Pretrain
from ..data.dataset import is_pattern
from ..data.inputs.folder import split_of
from ..export.backbone import WEIGHTS
from ..export.card import loading
from ..html.page import escape

OWN_PHOTOS = """\
# a folder of photos, or one subfolder per class; a small ResNet on 96 px views
python recipes/imagenet_moco_augself.py --data.train path/to/photos --run runs/mine \\
    --backbone.name resnet18 --view.size 96 --method.queue 4096 --epochs 100"""
IMAGENET = """\
fastaugself write imagenet/train train.beton --max-side 500
fastaugself write imagenet/val val.beton --max-side 500
torchrun --nproc-per-node=8 recipes/imagenet_moco_augself.py --data.train train.beton --data.val val.beton"""
LABELLED, VALIDATION = "path/to/photos", "path/to/val"  # stand for photos that the report does not know


def next_steps(config: Pretrain, run: Path, identity: dict[str, Any], *, is_demo: bool, labelled: bool) -> str:
    """The section as HTML. identity: the configuration as it was given. labelled: whether all photos have a class."""
    parts = ['<h2 id="next">What to do next</h2>', evaluate(config, run, identity, labelled=labelled)]
    parts.append(compare(config, run))
    if config.data.val is None:
        parts.append(validate(config, run))
    if is_demo:
        parts.append("<h3>Your own photos</h3>" + block(OWN_PHOTOS))
        parts.append("<h3>ImageNet</h3>" + block(IMAGENET))
    parts.append(
        "<h3>Resume this run</h3>\n<p>Run the same command again: it resumes after a kill, Ctrl-C or an earlier end by "
        "<code>--max-steps</code>. For a finished run, only the export and the report are written again.</p>"
    )
    parts.append("<h3>Load the weights</h3>" + block(loading(config, run / "export" / WEIGHTS)))
    return "\n".join(parts)


def evaluate(config: Pretrain, run: Path, identity: dict[str, Any], *, labelled: bool) -> str:
    """How to evaluate the features, beside those of random weights."""
    photos = evaluated_photos(config, identity) if labelled else None
    where = "" if photos else f" Replace <code>{LABELLED}</code> by a folder with one subfolder per class."
    words = ["eval", "knn", str(run), f"random:{run}", "--fuse", "none", "--data", str(photos or LABELLED)]
    recipe = _recipe_file(config)
    return (
        "<h3>Evaluate the features</h3>\n<p>Accuracy by nearest neighbours of the trained network, and of the same "
        f"network with random weights, with intervals.{where} <code>eval linear</code>, <code>fewshot</code>, "
        "<code>retrieval</code>, <code>parameters</code>, <code>invariance</code> and <code>equivariance</code> take "
        "the same arguments.</p>" + block(_command("fastaugself", *(("--recipe", recipe) if recipe else ()), *words))
    )


def compare(config: Pretrain, run: Path) -> str:
    """How to train the run to compare this one with, and to put both on one page."""
    options = baseline_options(config)
    other = Path(f"{run}-baseline" if options else f"{run}-seed{config.seed + 1}")
    about = (
        "The same run without augmentation-aware objectives, and one page with the curves of both. A difference counts "
        "only if it is larger than that of runs with another <code>--seed</code>."
        if options
        else "The same run with another seed, and one page with the curves of both: smaller differences between "
        "methods mean nothing."
    )
    changes = options or ["--seed", str(config.seed + 1)]
    return f"<h3>Compare with another run</h3>\n<p>{about}</p>" + block(
        _command(*_pretrain(config, run), *changes, "--run", str(other))
        + "\n"
        + _command("fastaugself", "report", str(run), str(other), "--out", "comparison.html")
    )


def validate(config: Pretrain, run: Path) -> str:
    """How to see the features improve during training."""
    known = _sibling(config)
    where = "" if known else f" Replace <code>{VALIDATION}</code> by a folder with one subfolder per class."
    words = [*_pretrain(config, run), "--data.val", str(known or VALIDATION), "--run", f"{run}-checked"]
    return (
        "<h3>Check the features during training</h3>\n<p>With validation photos, the accuracy of nearest neighbours "
        "and of a linear probe is logged before training, after every <code>--log.knn-epochs</code> epochs and at the "
        f"end.{where}</p>" + block(_command(*words))
    )


def baseline_options(config: Pretrain) -> list[str]:
    """Options that turn the aware objectives off; none if there are none, or nothing would be left to train."""
    if not config.base_loss:
        return []
    found: list[str] = []
    for name, options in config.objectives.items():
        found += [w for head in options.weights for w in (f"--augself.{head}", "0")] if name == "augself" else []
        found += [] if name == "augself" else [f"--{name}.weight", "0"]
    return found


def evaluated_photos(config: Pretrain, identity: dict[str, Any]) -> Path | None:
    """What `eval --data` takes for the photos of a run: the folder of both splits, else one file; None if neither."""
    given = identity.get("data", {})
    train, val = (Path(given[name]) if isinstance(given.get(name), str) else None for name in ("train", "val"))
    beside = train and val and train.is_dir() and val.is_dir() and train.resolve().parent == val.resolve().parent
    if train and val and beside and split_of(train.name) == "train" and split_of(val.name) in ("val", "test"):
        return train.parent
    for photos in (config.data.val, config.data.train):
        if isinstance(photos, Path) and photos.exists() and not is_pattern(photos):
            return photos
    return None


def _sibling(config: Pretrain) -> Path | None:
    """The validation photos next to the training photos, if they are called like that."""
    train = config.data.train
    if isinstance(train, Path) and train.stem == "train":
        for name in ("val", "test"):
            if (path := train.with_name(name + train.suffix)).exists():
                return path
    return None


def _pretrain(config: Pretrain, run: Path) -> Iterator[str]:
    """The words of a command that starts with this run's configuration."""
    yield from ("fastaugself", "pretrain", _recipe_file(config) or "imagenet_moco_augself")
    yield from ("--from", str(run / "config.json"))


def _recipe_file(config: Pretrain) -> str:
    """The file that registers the method or an objective of the run; empty if all are part of this package."""
    for options in (config.method, *config.objectives.values()):
        if type(options).__module__.partition(".")[0] != "fastaugself":
            return inspect.getfile(type(options))
    return ""


def _command(*words: str) -> str:
    """A command line, in several lines if it is long, that a shell reads as these words."""
    lines, line = [], ""
    for word in map(shlex.quote, words):
        if line and len(line) + len(word) > 96 and word.startswith("-"):
            lines.append(line)
            line = "   "
        line += (" " if line else "") + word
    return " \\\n".join([*lines, line])


def block(text: str) -> str:
    """A block of code."""
    return f"<pre><code>{escape(text)}</code></pre>"
