"""Readers of the papers' classification data sets, from the files as their authors distribute them.

Splits that are not distributed as files are drawn as in AugSelf's evaluation, by torch's random_split with the seed in
each declaration. The given sizes are for the complete data sets; for fewer samples they are scaled in proportion.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import RunError, UsageError
from ..splits import Arrays, Dataset, Split
from . import folders
from .files import cut_val, cut_val_by_class, labelled, lines, need, read_mat, read_pickle

Entry = tuple[str, str]  # path relative to the root, class name


@dataclass(frozen=True)
class Lists:
    """Reader of a data set whose splits are text files with one image per line.

    files: by split, relative to the root. entry: parses a line to (path relative to the root, class). layout: the
    expected files, for messages. val: if the validation split is drawn from train, (validation samples, train samples,
    seed), or (validation samples per class, 0, seed).
    """

    name: str
    files: dict[str, str]
    entry: Callable[[str], Entry]
    layout: str
    val: tuple[int, int, int] | None = None
    metric: Literal["top1", "mean_class"] = "top1"

    def __call__(self, root: Path) -> Dataset:
        need(root, self.name, *self.files.values(), layout=self.layout)
        entries = {split: [self.entry(line) for line in lines(root / path)] for split, path in self.files.items()}
        classes = tuple(sorted({kind for listed in entries.values() for _, kind in listed}))
        splits = {split: labelled(root, listed, classes) for split, listed in entries.items()}
        how = "official lists " + ", ".join(self.files.values())
        if self.val:
            number, total, seed = self.val
            train = splits["train"]
            splits |= cut_val(train, number, total, seed=seed) if total else cut_val_by_class(train, number, seed=seed)
            how += f"; validation {len(splits['val'])} of train, seed {seed}"
        return Dataset(self.name, classes, splits, self.metric, how=how)


def _first_word(line: str) -> Entry:
    name = line.split()[0]
    return f"images/{name}.jpg", re.sub(r"_\d+$", "", name)


LISTS = (
    Lists(
        "food101",
        {"train": "meta/train.txt", "test": "meta/test.txt"},
        lambda line: (f"images/{line}.jpg", line.split("/")[0]),
        "food-101/ with images/CLASS/ID.jpg and meta/train.txt, meta/test.txt",
        val=(7575, 75_750, 42),
    ),
    Lists(
        "mit67",
        {"train": "TrainImages.txt", "test": "TestImages.txt"},
        lambda line: (f"Images/{line}", line.split("/")[0]),
        "a folder with Images/CLASS/*.jpg, TrainImages.txt and TestImages.txt",
        val=(670, 5360, 51),
    ),
    Lists(
        "pets",
        {"train": "annotations/trainval.txt", "test": "annotations/test.txt"},
        _first_word,
        "a folder with images/*.jpg and annotations/trainval.txt, annotations/test.txt",
        val=(740, 3680, 49),
        metric="mean_class",
    ),
    Lists(
        "aircraft",
        {split: f"data/images_variant_{split}.txt" for split in ("train", "val", "test")},
        lambda line: (f"data/images/{line.split()[0]}.jpg", line.split(maxsplit=1)[1]),
        "fgvc-aircraft-2013b/ with data/images/*.jpg and data/images_variant_train.txt, _val.txt, _test.txt",
        metric="mean_class",
    ),
    Lists(
        "dtd",
        {split: f"labels/{split}1.txt" for split in ("train", "val", "test")},
        lambda line: (f"images/{line}", line.split("/")[0]),
        "dtd/ with images/CLASS/*.jpg and labels/train1.txt, val1.txt, test1.txt",
    ),
    Lists(
        "sun397",
        {"train": "Training_01.txt", "test": "Testing_01.txt"},
        lambda line: (line.lstrip("/"), line.rsplit("/", 1)[0].lstrip("/")),
        "SUN397/ with a/abbey/*.jpg, ... and the lists Training_01.txt, Testing_01.txt inside it",
        val=(10, 0, 0),
    ),
)


def flowers102(root: Path) -> Dataset:
    """a folder with jpg/image_00001.jpg ..., imagelabels.mat and setid.mat"""
    need(root, "flowers102", "jpg", "imagelabels.mat", "setid.mat", layout=str(flowers102.__doc__))
    labels = np.atleast_1d(read_mat(root / "imagelabels.mat")["labels"]).astype(int)
    sets = read_mat(root / "setid.mat")
    classes = tuple(str(label) for label in sorted(set(labels.tolist())))
    splits = {
        split: labelled(
            root, [(f"jpg/image_{i:05d}.jpg", str(labels[i - 1])) for i in np.atleast_1d(sets[key]).tolist()], classes
        )
        for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    }
    return Dataset("flowers102", classes, splits, "mean_class", how="official setid.mat")


def caltech101(root: Path) -> Dataset:
    """101_ObjectCategories/ or the folder above it, with one folder per class"""
    root = root / "101_ObjectCategories" if (root / "101_ObjectCategories").is_dir() else root
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("BACKGROUND"))
    if len(names) < 2:
        raise UsageError(f"{root} is not caltech101 as expected: it has {len(names)} class folders; expected 101")
    entries = [(f"{name}/{p.name}", name) for name in names for p in sorted((root / name).glob("*.jpg"))]
    whole = labelled(root, entries, names)
    counts = np.bincount(whole.labels_N, minlength=len(names))
    if counts.min() <= 30:
        short = names[int(counts.argmin())]
        raise UsageError(f"{root / short} has {counts.min()} images, expected more than 30: is the data set complete?")
    splits = {"test": whole, **cut_val_by_class(whole, 30, seed=0)}
    splits["test"], chosen = splits["train"], splits["val"]
    splits |= cut_val_by_class(chosen, 5, seed=1)
    how = "25 train, 5 validation and all other images test per class, seeds 0 and 1 (not the published indices)"
    return Dataset("caltech101", tuple(names), splits, "mean_class", how=how)


def cars(root: Path) -> Dataset:
    """a folder with cars_train/, cars_test/ and devkit/ with cars_meta.mat, cars_train_annos.mat and
    cars_test_annos_withlabels.mat"""
    annotations = {"train": "devkit/cars_train_annos.mat", "test": "devkit/cars_test_annos_withlabels.mat"}
    need(root, "cars", *annotations.values(), "devkit/cars_meta.mat", layout=str(cars.__doc__))
    classes = tuple(str(name) for name in np.atleast_1d(read_mat(root / "devkit/cars_meta.mat")["class_names"]))
    splits = {}
    for split, path in annotations.items():
        rows = np.atleast_1d(read_mat(root / path)["annotations"])
        entries = [(f"cars_{split}/{row.fname}", classes[int(getattr(row, "class")) - 1]) for row in rows]
        boxes = [[row.bbox_x1 - 1, row.bbox_y1 - 1, row.bbox_x2, row.bbox_y2] for row in rows]  # 1-based, inclusive
        splits[split] = labelled(root, entries, classes, targets_NT=np.array(boxes, np.float64))
    splits |= cut_val(splits["train"], 1144, 8144, seed=51)
    return Dataset("cars", classes, splits, kind="boxes", how="official; validation 1144 of train, seed 51")


def cifar10(root: Path) -> Dataset:
    """cifar-10-batches-py/ with data_batch_1 ... data_batch_5, test_batch and batches.meta"""
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    need(root, "cifar10", *batches, "test_batch", "batches.meta", layout=str(cifar10.__doc__))
    names = tuple(_text(name) for name in read_pickle(root / "batches.meta")["label_names"])
    splits = {"train": _pixels(root, batches, "labels"), "test": _pixels(root, ["test_batch"], "labels")}
    splits |= cut_val(splits["train"], 5000, 50_000, seed=43)
    return Dataset("cifar10", names, splits, how="official; validation 5000 of train, seed 43")


def cifar100(root: Path) -> Dataset:
    """cifar-100-python/ with train, test and meta"""
    need(root, "cifar100", "train", "test", "meta", layout=str(cifar100.__doc__))
    names = tuple(_text(name) for name in read_pickle(root / "meta")["fine_label_names"])
    splits = {"train": _pixels(root, ["train"], "fine_labels"), "test": _pixels(root, ["test"], "fine_labels")}
    splits |= cut_val(splits["train"], 5000, 50_000, seed=44)
    return Dataset("cifar100", names, splits, how="official; validation 5000 of train, seed 44")


def fc100(root: Path) -> Dataset:
    """a folder with FC100_train.pickle, FC100_val.pickle and FC100_test.pickle (episodes: the classes of test)"""
    files = {split: f"FC100_{split}.pickle" for split in ("train", "val", "test")}
    need(root, "fc100", *files.values(), layout=str(fc100.__doc__))
    splits = {}
    for split, path in files.items():
        found = read_pickle(root / path)
        data, labels = np.asarray(found["data"], np.uint8), np.asarray(found["labels"], np.int64)
        if data.ndim != 4 or data.shape[3] != 3 or len(data) != len(labels):
            raise RunError(f"{root / path} holds data of shape {data.shape} with {len(labels)} labels, not images")
        splits[split] = Split(Arrays(data), labels)
    highest = max(int(split.labels_N.max()) for split in splits.values())
    classes = tuple(f"class {i}" for i in range(highest + 1))
    return Dataset("fc100", classes, splits, how="official; the splits have different classes")


def stl10(root: Path) -> Dataset:
    """stl10_binary/ with train_X.bin, train_y.bin, test_X.bin, test_y.bin and class_names.txt"""
    parts = [f"{split}_{kind}.bin" for split in ("train", "test") for kind in "Xy"]
    need(root, "stl10", *parts, "class_names.txt", layout=str(stl10.__doc__))
    splits = {}
    for split in ("train", "test"):
        labels = np.fromfile(root / f"{split}_y.bin", np.uint8).astype(np.int64) - 1
        pixels = np.fromfile(root / f"{split}_X.bin", np.uint8)
        if len(pixels) != len(labels) * 3 * 96 * 96:
            raise RunError(
                f"{root / f'{split}_X.bin'} has {len(pixels)} bytes, not {len(labels)} images of 96 x 96 x 3"
            )
        images = pixels.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)  # stored column-major
        splits[split] = Split(Arrays(np.ascontiguousarray(images)), labels)
    splits |= cut_val(splits["train"], 500, 5000, seed=50)
    names = tuple(lines(root / "class_names.txt"))
    return Dataset("stl10", names, splits, how="official; validation 500 of train, seed 50")


def plantdisease(root: Path) -> Dataset:
    """a folder with train/CLASS/*.jpg and test/CLASS/*.jpg or valid/CLASS/*.jpg (episodes: both splits)"""
    need(root, "plantdisease", "train", layout=str(plantdisease.__doc__))
    dataset = folders.read(root)
    parts = [f"{p.name}/{name}" for p in sorted(root.iterdir()) if p.is_dir() for name in _below(p)]
    entries = [(name, name.split("/")[1]) for name in parts]
    whole = labelled(root, entries, dataset.classes)
    splits = {**dataset.splits, "all": whole}
    return Dataset("plantdisease", dataset.classes, splits, episodes="all", how=dataset.how, notes=dataset.notes)


def _below(folder: Path) -> list[str]:
    from ...data.inputs.folder import list_photos

    return list_photos(folder).files


def _pixels(root: Path, files: list[str], key: str) -> Split:
    parts = [read_pickle(root / name) for name in files]
    for name, part in zip(files, parts, strict=True):
        if key not in part or "data" not in part or np.asarray(part["data"]).shape[1:] != (3072,):
            raise RunError(f"{root / name} does not hold data [N, 3072] and {key}")
    pixels = np.concatenate([np.asarray(part["data"], np.uint8) for part in parts])
    labels = np.concatenate([np.asarray(part[key], np.int64) for part in parts])
    return Split(Arrays(np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))), labels)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


READERS: dict[str, Callable[[Path], Dataset]] = {
    **{lists.name: lists for lists in LISTS},
    **{f.__name__: f for f in (flowers102, caltech101, cars, cifar10, cifar100, fc100, stl10, plantdisease)},
}
