"""Readers of ImageNet's shifted test sets, as their authors distribute them: V2, R, A, Sketch, C and P.

Each is a test set only: `fastaugself eval robustness` tests on them what was trained on ImageNet or a part of it.
Their classes are WordNet ids (n01440764, ...), those of V2 the positions of these ids in ImageNet's sorted list.

Shape suffixes: N images.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...data.inputs.folder import list_photos
from ...errors import RunError, UsageError
from ...probes.robustness import CORRUPTIONS, SEVERITIES
from ..splits import Dataset, Files, Split
from .videos import list_videos

WORDNET_ID = re.compile(r"n\d{8}")
PERTURBATIONS = (
    "gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow", "brightness", "translate", "rotate", "tilt",
    "scale",
)  # fmt: skip
_GROUPS = ("", "noise", "blur", "weather", "digital")  # the tar files of ImageNet-C hold these folders


def imagenet_r(root: Path) -> Dataset:
    """imagenet-r/ with one folder per WordNet id (200 of ImageNet's classes)"""
    return _by_wordnet_id(root, "imagenet-r", str(imagenet_r.__doc__))


def imagenet_a(root: Path) -> Dataset:
    """imagenet-a/ with one folder per WordNet id (200 of ImageNet's classes)"""
    return _by_wordnet_id(root, "imagenet-a", str(imagenet_a.__doc__))


def imagenet_sketch(root: Path) -> Dataset:
    """sketch/ or the folder above it, with one folder per WordNet id"""
    root = root / "sketch" if (root / "sketch").is_dir() else root
    return _by_wordnet_id(root, "imagenet-sketch", str(imagenet_sketch.__doc__))


def imagenet_v2(root: Path) -> Dataset:
    """imagenetv2-matched-frequency-format-val/ (or another of the three) with the folders 0 to 999"""
    names = [path.name for path in _folders(root)]
    wrong = [name for name in names if not (name.isascii() and name.isdecimal() and int(name) < 1000)]
    if wrong or not names:
        found = f"it has a folder {wrong[0]}" if wrong else "it has no folders"
        raise UsageError(f"{root} is not imagenet-v2 as expected: {found}; expected {imagenet_v2.__doc__}")
    classes = tuple(sorted(names, key=int))
    return Dataset("imagenet-v2", classes, {"test": _labelled(root, classes)}, how="official")


def imagenet_c(root: Path, corruptions: Sequence[str] = CORRUPTIONS, severities: Sequence[int] = SEVERITIES) -> Dataset:
    """a folder with gaussian_noise/1/n01440764/*.JPEG, ..., or with the tar files' folders, noise/gaussian_noise/...
    (splits gaussian_noise-1, ...)"""
    found = {name: root / group / name for group in _GROUPS for name in CORRUPTIONS if (root / group / name).is_dir()}
    if not found:
        raise UsageError(f"{root} is not imagenet-c as expected: it has no corruption; expected {_layout(imagenet_c)}")
    splits: dict[str, Split] = {}
    classes: tuple[str, ...] = ()
    for name in corruptions:
        for severity in severities:
            folder = found.get(name, root / name) / str(severity)
            if not folder.is_dir():
                raise UsageError(
                    f"{folder} is missing: copy it there, or pass --corruptions with some of {', '.join(found)} and "
                    f"--severities with what is there"
                )
            classes = classes or _wordnet_ids(folder, "imagenet-c", _layout(imagenet_c))
            split = splits[f"{name}-{severity}"] = _labelled(folder, classes)
            first, names = next(iter(splits.values())).names, split.names
            if names != first:
                (other, *_) = sorted(set(first) ^ set(names))
                raise UsageError(
                    f"{folder} does not hold the images of {next(iter(splits))}: {other} is in one of the two only; "
                    f"extract both again"
                )
    return Dataset("imagenet-c", classes, splits, how="official")


def imagenet_p(root: Path, perturbations: Sequence[str] = ()) -> Dataset:
    """a folder with gaussian_noise/n01440764/*.mp4, ..., or a folder of frames (0.png, 1.png, ...) in place of each mp4
    (splits gaussian_noise ...; columns sequence and frame)"""
    there = [name for name in PERTURBATIONS if (root / name).is_dir()]
    if not there:
        raise UsageError(
            f"{root} is not imagenet-p as expected: it has no perturbation; expected {_layout(imagenet_p)}"
        )
    splits: dict[str, Split] = {}
    classes: tuple[str, ...] = ()
    for name in perturbations or there:
        folder = root / name
        if not folder.is_dir():
            raise UsageError(f"{folder} is missing: copy it there, or leave out {name}")
        classes = classes or _wordnet_ids(folder, "imagenet-p", _layout(imagenet_p))
        videos = list_videos(folder, classes)
        labels = {kind: i for i, kind in enumerate(classes)}
        labels_V = np.array([labels[video.split("/", 1)[0]] for video in videos.names], np.int64)
        places_N2 = videos.places_N2
        names = [f"{videos.names[v]} frame {f}" for v, f in places_N2.tolist()]
        splits[name] = Split(videos, labels_V[places_N2[:, 0]], places_N2.astype(np.float64), names)
    return Dataset("imagenet-p", classes, splits, kind="values", target_names=("sequence", "frame"), how="official")


def _layout(reader: Callable[..., Dataset]) -> str:
    return " ".join(str(reader.__doc__).split())


def _by_wordnet_id(root: Path, name: str, layout: str) -> Dataset:
    classes = _wordnet_ids(root, name, layout)
    return Dataset(name, classes, {"test": _labelled(root, classes)}, how="official")


def _folders(root: Path) -> list[Path]:
    """The folders in a folder, sorted; UsageError for a file."""
    if not root.is_dir():
        raise UsageError(f"{root} is a file: pass the folder that it was extracted to")
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _wordnet_ids(root: Path, name: str, layout: str) -> tuple[str, ...]:
    """The names of the class folders, which must be WordNet ids."""
    names = [path.name for path in _folders(root)]
    wrong = [entry for entry in names if not WORDNET_ID.fullmatch(entry)]
    if wrong or not names:
        found = f"it has a folder {wrong[0]}" if wrong else "it has no folders"
        raise UsageError(f"{root} is not {name} as expected: {found}; expected {layout}")
    return tuple(names)


def _labelled(root: Path, classes: Sequence[str]) -> Split:
    """The photos of class folders. Raises UsageError for a folder that is not one of `classes`."""
    listed = list_photos(root)
    if listed.faults:
        raise RunError(listed.faults[min(listed.faults)])
    index = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in listed.classes if name not in index]
    if unknown:
        raise UsageError(f"{root / unknown[0]} is not a class of the other folders: is the data set complete?")
    labels_N = np.array([index[listed.classes[label]] for label in listed.labels], np.int64)
    return Split(Files(root, listed.files), labels_N, None, listed.files)


READERS: dict[str, Callable[[Path], Dataset]] = {
    "imagenet-v2": imagenet_v2,
    "imagenet-r": imagenet_r,
    "imagenet-a": imagenet_a,
    "imagenet-sketch": imagenet_sketch,
    "imagenet-c": imagenet_c,
    "imagenet-p": imagenet_p,
}
