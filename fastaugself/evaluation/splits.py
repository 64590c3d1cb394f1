"""Data sets for evaluation: images with labels and targets, in splits.

Shape suffixes: N samples, T target columns, H W, C channels.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.divide import cut as cut
from ..data.divide import cut_by_class as cut_by_class
from ..data.divide import thin as thin
from ..data.inputs.opening import read_rgb
from ..data.inputs.samples import open_file
from ..errors import RunError, UsageError
from ..files import replace_file, utf8

OPENED_AS = 2  # change it when the pixels of the same file become others, so that cached features are not used
Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


class Images(Protocol):
    """A sequence of images."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Image.Image:
        """An image as 8-bit RGB, upright by its EXIF orientation; RunError with its name if it cannot be read."""
        ...

    def digest(self, memo: Path | None) -> str:
        """Hash of the content of all images in order. memo: folder that remembers the hashes of unchanged files."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files below a folder. boxes: an optional crop (left, top, right, bottom) of each, in pixels."""

    root: Path
    names: Sequence[str]
    boxes: Sequence[tuple[float, float, float, float]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> Image.Image:
        path = self.root / self.names[index]
        if not path.exists():
            raise RunError(f"{path} is missing: the folder has changed since it was listed, or is incomplete")
        opened = read_rgb(path)
        if self.boxes is None:
            return opened
        left, top, right, bottom = (round(v) for v in self.boxes[index])
        return opened.crop((left, top, right, bottom))

    def digest(self, memo: Path | None) -> str:
        digest = hashlib.blake2b(f"{OPENED_AS} {self.boxes!r}".encode(), digest_size=16)
        for value in _file_digests(self.root, self.names, memo):
            digest.update(utf8(value))
        return digest.hexdigest()


@dataclass(frozen=True)
class Arrays:
    """Images in memory, uint8 [N, H, W, 3]."""

    pixels_NHWC: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels_NHWC)

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels_NHWC[index])

    def digest(self, memo: Path | None) -> str:
        shape = str(self.pixels_NHWC.shape).encode()
        return hashlib.blake2b(shape + np.ascontiguousarray(self.pixels_NHWC).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Subset:
    """The images at `indices` of a sequence."""

    images: Images
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def open(self, index: int) -> Image.Image:
        return self.images.open(int(self.indices[index]))

    def digest(self, memo: Path | None) -> str:
        if isinstance(self.images, Files):  # equal files have equal digests in any split
            names = [self.images.names[i] for i in self.indices]
            boxes = None if self.images.boxes is None else [self.images.boxes[i] for i in self.indices]
            return Files(self.images.root, names, boxes).digest(memo)
        return hashlib.blake2b(
            self.images.digest(memo).encode() + self.indices.astype(np.int64).tobytes(), digest_size=16
        ).hexdigest()


@dataclass(frozen=True)
class Joined:
    """The concatenation of two sequences of images."""

    first: Images
    second: Images

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def open(self, index: int) -> Image.Image:
        return self.first.open(index) if index < len(self.first) else self.second.open(index - len(self.first))

    def digest(self, memo: Path | None) -> str:
        both = self.first.digest(memo) + self.second.digest(memo)
        return hashlib.blake2b(both.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Split:
    """The samples of one split.

    labels_N: int64 class, -1 if unlabelled. targets_NT: float64, in pixels of the image for boxes and points.
    names: of the samples, for messages and pages.
    """

    images: Images
    labels_N: Labels
    targets_NT: Floats | None = None
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """The samples at `indices`, in that order."""
        targets = None if self.targets_NT is None else self.targets_NT[indices]
        names = [self.names[i] for i in indices] if self.names else []
        return Split(Subset(self.images, indices), self.labels_N[indices], targets, names)

    def join(self, other: "Split") -> "Split":
        """The concatenation with another split of the same data set."""
        targets = None
        if self.targets_NT is not None and other.targets_NT is not None:
            targets = np.concatenate([self.targets_NT, other.targets_NT])
        labels_N = np.concatenate([self.labels_N, other.labels_N])
        return Split(Joined(self.images, other.images), labels_N, targets, [*self.names, *other.names])

    def name(self, index: int) -> str:
        """Name of a sample."""
        return self.names[index] if self.names else f"sample {index}"


@dataclass(frozen=True)
class Dataset:
    """A data set in splits.

    classes: class names by label. splits: `train`, `val`, `test`, or `all` if the source has no splits.
    metric: accuracy over samples, or mean over classes. kind: of the targets: boxes (left, top, right, bottom), points
    (x, y, x, y, ...), or other values. target_names: names of the target columns. episodes: split of the few-shot
    episodes. how: description of the splits. notes: further remarks to log.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    metric: Literal["top1", "mean_class"] = "top1"
    kind: Literal["", "boxes", "points", "values"] = ""
    target_names: tuple[str, ...] = ()
    episodes: Literal["test", "all"] = "test"
    how: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)

    def chosen_split(self, name: str) -> str:
        """The name of the split that --split chose, by default `test`, or `all` of a data set without splits.

        Raises UsageError, with those that there are, for another name.
        """
        default = next((split for split in ("test", "all") if split in self.splits), "")
        if name and name not in self.splits:
            instead = default or next(iter(self.splits))
            raise UsageError(f"--split {name}: {self.name} has {', '.join(self.splits)}; pass --split {instead}")
        return name or default

    def split(self, name: str) -> Split:
        """The split of a name; UsageError if the data set has none."""
        if name not in self.splits:
            raise UsageError(
                f"{self.name} has no {name} split, only {', '.join(self.splits)}, but this protocol needs one: pass "
                f"a folder with train/ and test/, or with one folder per class"
            )
        return self.splits[name]


def with_val(dataset: Dataset, *, seed: int, fraction: float = 0.1, resplit: bool = False) -> Dataset:
    """Adds a validation split where there is none: `fraction` of each class of `train`.

    resplit: draw it from `train` and the existing validation split together. Raises UsageError if `train` is too small.
    """
    source = "train"
    if resplit and {"train", "val"} <= dataset.splits.keys():
        source = "train and val"
        others = {name: split for name, split in dataset.splits.items() if name != "val"}
        whole = {**others, "train": dataset.splits["train"].join(dataset.splits["val"])}
        dataset = dataclasses.replace(dataset, splits=whole)
    if "val" in dataset.splits or "train" not in dataset.splits:
        return dataset
    train = dataset.splits["train"]
    kept, held_out = cut_by_class(train.labels_N, fraction, seed=seed)
    if not len(held_out):
        raise UsageError(f"{dataset.name}: {len(train)} training samples are too few for a validation split; add more")
    splits = {**dataset.splits, "train": train.take(kept), "val": train.take(held_out)}
    how = f"{dataset.how}; validation {fraction:.0%} of {source} by class, seed {seed}".removeprefix("; ")
    return dataclasses.replace(dataset, splits=splits, how=how)


def require_classes(dataset: Dataset, names: Sequence[str]) -> None:
    """Raises UsageError unless all samples are labelled and the splits have the same classes, at least two.

    names: of the splits; the last one is the split that is scored.
    """
    present = {name: set(np.unique(dataset.split(name).labels_N).tolist()) for name in names}
    for name, labels in present.items():
        if not labels:
            raise UsageError(f"the {name} split of {dataset.name} is empty")
        if min(labels) < 0:
            raise UsageError(
                f"the {name} split of {dataset.name} has samples without a class; move them into class folders"
            )
    everything = set().union(*present.values())
    if len(everything) < 2:
        (only,) = everything
        raise UsageError(f"{dataset.name} has one class ({dataset.classes[only]}): expected at least two")
    reference = present[names[0]]
    for name in names[1:]:
        unseen = sorted(present[name] - reference)
        if unseen:
            raise UsageError(
                f"{dataset.name}: class {dataset.classes[unseen[0]]} ({len(unseen)} in all) is in the {name} split but "
                f"not in {names[0]}, so it cannot be learned: remove it from {name} or add samples"
            )
    missing = sorted(reference - present[names[-1]])
    if missing:
        raise UsageError(
            f"{dataset.name}: class {dataset.classes[missing[0]]} ({len(missing)} in all) is missing from the "
            f"{names[-1]} split, so its accuracy cannot be measured: remove it from {names[0]} or add samples"
            + (", or pass --resplit to draw a new validation split" if names[-1] == "val" else "")
        )


def _file_digests(root: Path, names: Sequence[str], memo: Path | None) -> list[str]:
    """Hash of every file's bytes.

    A file is not read again if its size, inode, modification time and status time are unchanged since the memo was
    written.
    """
    kept: dict[str, list[str]] = {}
    memo_file = None
    if memo is not None:
        memo_file = memo / f"files-{hashlib.blake2b(utf8(str(root.resolve())), digest_size=12).hexdigest()}.json"
        try:
            kept = json.loads(memo_file.read_text())
        except (OSError, ValueError):
            kept = {}
    digests, fresh = [], False
    for name in names:
        try:
            status = (root / name).stat()
            mark = f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
            entry = kept.get(name)
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == mark):
                with open_file(root / name) as file:
                    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
                entry = kept[name] = [mark, digest.hexdigest()]
                fresh = True
        except OSError as error:
            raise RunError(f"{root / name} cannot be read: {error.strerror}") from None
        digests.append(entry[1])
    if memo_file is not None and fresh:
        replace_file(memo_file, json.dumps(kept).encode())
    return digests
