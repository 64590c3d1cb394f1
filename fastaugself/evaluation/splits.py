"""Images with labels and targets, in splits: what every protocol reads.

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
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import RunError, UsageError
from ..files import replace_file

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


class Images(Protocol):
    """Images by position."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Image.Image:
        """An image as 8-bit RGB, upright; RunError naming it where it cannot be read."""
        ...

    def digest(self, memo: Path | None) -> str:
        """Of the content of all images, in their order. memo: folder where digests of unchanged files are kept."""
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
        try:
            with Image.open(path) as image:
                opened = ImageOps.exif_transpose(image).convert("RGB")
        except FileNotFoundError:
            raise RunError(f"{path} is missing: the folder changed since it was listed, or is incomplete") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise RunError(f"{path} cannot be decoded ({error}); replace or remove it") from None
        if self.boxes is None:
            return opened
        left, top, right, bottom = (round(v) for v in self.boxes[index])
        return opened.crop((left, top, right, bottom))

    def digest(self, memo: Path | None) -> str:
        digest = hashlib.blake2b(repr(self.boxes).encode(), digest_size=16)
        for value in _file_digests(self.root, self.names, memo):
            digest.update(value.encode())
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
    """Some images of others, in the order of `indices`."""

    images: Images
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def open(self, index: int) -> Image.Image:
        return self.images.open(int(self.indices[index]))

    def digest(self, memo: Path | None) -> str:
        if isinstance(self.images, Files):  # the same files in another split are the same content
            names = [self.images.names[i] for i in self.indices]
            boxes = None if self.images.boxes is None else [self.images.boxes[i] for i in self.indices]
            return Files(self.images.root, names, boxes).digest(memo)
        return hashlib.blake2b(
            self.images.digest(memo).encode() + self.indices.astype(np.int64).tobytes(), digest_size=16
        ).hexdigest()


@dataclass(frozen=True)
class Joined:
    """Images of two sets, one after the other."""

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
    """labels_N: int64 class, -1 without one. targets_NT: float64, in pixels of the image (boxes, points) or as given.

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
        """These samples, then those of another split of the same data set."""
        targets = None
        if self.targets_NT is not None and other.targets_NT is not None:
            targets = np.concatenate([self.targets_NT, other.targets_NT])
        labels_N = np.concatenate([self.labels_N, other.labels_N])
        return Split(Joined(self.images, other.images), labels_N, targets, [*self.names, *other.names])

    def name(self, index: int) -> str:
        return self.names[index] if self.names else f"sample {index}"


@dataclass(frozen=True)
class Dataset:
    """name: of the data set. classes: names by label. metric: accuracy over samples, or mean over classes.

    splits: `train`, `val`, `test`, or `all` where the source has no splits. kind: of the targets: boxes are
    (left, top, right, bottom), points (x, y, x, y, ...), values anything. target_names: of values. episodes: where
    few-shot episodes are drawn from. how: the splits in words.
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

    def split(self, name: str) -> Split:
        """One split; UsageError where the data set has none of that name."""
        if name not in self.splits:
            raise UsageError(
                f"{self.name} has no {name} split, only {', '.join(self.splits)}: this protocol needs one; pass "
                f"a folder with train/ and test/, or with one folder a class"
            )
        return self.splits[name]


def cut(count: int, out: int, *, seed: int) -> tuple[Labels, Labels]:
    """(stay, leave): `out` of `count` positions leave by torch.randperm of `seed`, as `torch.utils.data.random_split`
    deals them: the first `count - out` of the permutation stay."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[: count - out], order[count - out :]


def cut_by_class(labels_N: Labels, out: float, *, seed: int) -> tuple[Labels, Labels]:
    """(stay, leave): of each class `out` samples leave (a share below 1, at least one sample), by torch.randperm."""
    generator = torch.Generator().manual_seed(seed)
    stay, leave = [], []
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        members = members[torch.randperm(len(members), generator=generator).numpy()]
        number = min(len(members) - 1, round(out) if out >= 1 else max(1, round(out * len(members))))
        leave.append(members[:number])
        stay.append(members[number:])
    return np.sort(np.concatenate(stay)), np.sort(np.concatenate(leave))


def thin(labels_N: Labels, limit: int, *, seed: int) -> Labels:
    """At most `limit` positions in order, of every class in proportion and at least one."""
    random = np.random.default_rng(seed)
    place_N = np.empty(len(labels_N))  # of each sample in its class, in [0, 1)
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        places = (np.arange(len(members)) + random.random()) / len(members)
        places[0] = 0
        place_N[members] = random.permutation(places)
    limit = max(limit, len(np.unique(labels_N)))
    return np.sort(np.argsort(place_N, kind="stable")[:limit])


def with_val(dataset: Dataset, *, seed: int, share: float = 0.1, anew: bool = False) -> Dataset:
    """The data set with a validation split, cut from `train` class by class where it has none.

    anew: cut it from train and its own validation split together.
    """
    source = "train"
    if anew and {"train", "val"} <= dataset.splits.keys():
        source = "train and val"
        others = {name: split for name, split in dataset.splits.items() if name != "val"}
        whole = {**others, "train": dataset.splits["train"].join(dataset.splits["val"])}
        dataset = dataclasses.replace(dataset, splits=whole)
    if "val" in dataset.splits or "train" not in dataset.splits:
        return dataset
    train = dataset.splits["train"]
    stay, leave = cut_by_class(train.labels_N, share, seed=seed)
    if not len(leave):
        raise UsageError(f"{dataset.name}: {len(train)} training samples cannot be split for validation; add more")
    splits = {**dataset.splits, "train": train.take(stay), "val": train.take(leave)}
    how = f"{dataset.how}; validation {share:.0%} of {source} by class, seed {seed}".removeprefix("; ")
    return dataclasses.replace(dataset, splits=splits, how=how)


def require_classes(dataset: Dataset, names: Sequence[str]) -> None:
    """Refuses unlabelled samples, a single class, and a class that is in one of the splits and missing in another."""
    present = {name: set(np.unique(dataset.split(name).labels_N).tolist()) for name in names}
    for name, labels in present.items():
        if not labels:
            raise UsageError(f"the {name} split of {dataset.name} is empty")
        if min(labels) < 0:
            raise UsageError(
                f"the {name} split of {dataset.name} has samples without a class; put them into class folders"
            )
    everything = set().union(*present.values())
    if len(everything) < 2:
        (only,) = everything
        raise UsageError(f"{dataset.name} has one class ({dataset.classes[only]}): there is nothing to tell apart")
    reference = present[names[0]]
    for name in names[1:]:
        unseen = sorted(present[name] - reference)
        if unseen:
            raise UsageError(
                f"{dataset.name}: class {dataset.classes[unseen[0]]} ({len(unseen)} in all) is in the {name} split but "
                f"not in {names[0]}: no probe can learn it"
            )
    missing = sorted(reference - present[names[-1]])
    if missing:
        raise UsageError(
            f"{dataset.name}: class {dataset.classes[missing[0]]} ({len(missing)} in all) is missing from the "
            f"{names[-1]} split: its accuracy cannot be known; remove it from {names[0]} or add samples"
            + (", or pass --resplit to draw validation anew" if names[-1] == "val" else "")
        )


def _file_digests(root: Path, names: Sequence[str], memo: Path | None) -> list[str]:
    """Digest of every file's bytes. A file whose size, inode and times (also of its status) are unchanged since the
    memo was written is not read again."""
    kept: dict[str, list[str]] = {}
    place = None
    if memo is not None:
        place = memo / f"files-{hashlib.blake2b(str(root.resolve()).encode(), digest_size=12).hexdigest()}.json"
        try:
            kept = json.loads(place.read_text())
        except (OSError, ValueError):
            kept = {}
    digests, fresh = [], False
    for name in names:
        try:
            status = (root / name).stat()
            mark = f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
            entry = kept.get(name)
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == mark):
                data = (root / name).read_bytes()
                entry = kept[name] = [mark, hashlib.blake2b(data, digest_size=16).hexdigest()]
                fresh = True
        except OSError as error:
            raise RunError(f"{root / name} cannot be read: {error.strerror}") from None
        digests.append(entry[1])
    if place is not None and fresh:
        replace_file(place, json.dumps(kept).encode())
    return digests
