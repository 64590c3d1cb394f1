"""Readers of the photo data sets of VTAB that the papers' readers do not cover: SVHN, EuroSAT, RESISC45, Patch Camelyon
and Diabetic Retinopathy (Zhai 2019, arXiv 1910.04867).

VTAB takes the images in the order of TensorFlow Datasets. Splits that are not distributed as files are drawn here in
the same sizes, with seed 0.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...errors import UsageError
from ...files import read_text
from ..splits import Arrays, Dataset, Split, cut_by_class
from .files import cut_val, labelled, need, read_mat
from .raw_images import Hdf5Images, hdf5


def svhn(root: Path) -> Dataset:
    """a folder with train_32x32.mat and test_32x32.mat"""
    need(root, "svhn", "train_32x32.mat", "test_32x32.mat", layout=str(svhn.__doc__))
    splits = {}
    for split in ("train", "test"):
        found = read_mat(root / f"{split}_32x32.mat")
        pixels_NHWC = np.ascontiguousarray(np.asarray(found["X"], np.uint8).transpose(3, 0, 1, 2))
        splits[split] = Split(Arrays(pixels_NHWC), np.atleast_1d(found["y"]).astype(np.int64) % 10)  # 10 is the digit 0
    splits |= cut_val(splits["train"], 7326, 73_257, seed=0)
    return Dataset("svhn", tuple("0123456789"), splits, how="official; validation 10 % of train, seed 0")


def eurosat(root: Path) -> Dataset:
    """2750/ (or the folder above it) with one folder per class, such as AnnualCrop/*.jpg: the RGB version"""
    return _by_class(root / "2750" if (root / "2750").is_dir() else root, "eurosat", str(eurosat.__doc__), 10)


def resisc45(root: Path) -> Dataset:
    """NWPU-RESISC45/ (or the folder above it) with one folder per class, such as airplane/*.jpg"""
    inside = root / "NWPU-RESISC45"
    return _by_class(inside if inside.is_dir() else root, "resisc45", str(resisc45.__doc__), 45)


def _by_class(root: Path, name: str, layout: str, count: int) -> Dataset:
    """Class folders, 60 % of each class for training and 20 % each for validation and test."""
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and any(path.glob("*.jpg")))
    if len(classes) != count:
        raise UsageError(
            f"{root} is not {name} as expected: it has {len(classes)} folders with *.jpg, not {count}; "
            f"expected {layout}"
        )
    entries = [(f"{kind}/{path.name}", kind) for kind in classes for path in sorted((root / kind).glob("*.jpg"))]
    whole = labelled(root, entries, classes)
    rest, test = cut_by_class(whole.labels_N, 0.2, seed=0)
    train, val = cut_by_class(whole.labels_N[rest], 0.25, seed=0)
    splits = {"train": whole.take(rest[train]), "val": whole.take(rest[val]), "test": whole.take(test)}
    return Dataset(name, tuple(classes), splits, how="60/20/20 % of each class, seed 0")


def patch_camelyon(root: Path) -> Dataset:
    """a folder with camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5"""
    names = {split: f"camelyonpatch_level_2_split_{part}" for split, part in _CAMELYON.items()}
    files = [f"{name}_{kind}.h5" for name in names.values() for kind in "xy"]
    need(root, "patch-camelyon", *files, layout=str(patch_camelyon.__doc__))
    splits = {}
    for split, name in names.items():
        with hdf5(root / f"{name}_y.h5") as file:
            labels_N = np.asarray(file["y"]).reshape(-1).astype(np.int64)
        splits[split] = Split(Hdf5Images(root / f"{name}_x.h5", "x"), labels_N)
    return Dataset("patch-camelyon", ("normal", "tumour"), splits, how="official")


_CAMELYON = {"train": "train", "val": "valid", "test": "test"}


def retinopathy(root: Path) -> Dataset:
    """Kaggle's diabetic-retinopathy-detection: train/*.jpeg, trainLabels.csv, test/*.jpeg and retinopathy_solution.csv
    (validation: the rows with the usage Public), as distributed, without VTAB's preprocessing (btgraham-300)"""
    files = ("train", "trainLabels.csv", "test", "retinopathy_solution.csv")
    need(root, "retinopathy", *files, layout=str(retinopathy.__doc__))
    classes = tuple(str(level) for level in range(5))
    rows = {name: list(csv.DictReader(io.StringIO(read_text(root / name)))) for name in (files[1], files[3])}
    entries = {"train": [(f"train/{row['image']}.jpeg", row["level"]) for row in rows[files[1]]]}
    for split, usage in (("val", "Public"), ("test", "Private")):
        entries[split] = [
            (f"test/{row['image']}.jpeg", row["level"]) for row in rows[files[3]] if row.get("Usage") == usage
        ]
    splits = {split: labelled(root, listed, classes) for split, listed in entries.items()}
    return Dataset("retinopathy", classes, splits, how="official; validation Public, test Private")


READERS: dict[str, Callable[[Path], Dataset]] = {
    "svhn": svhn,
    "eurosat": eurosat,
    "resisc45": resisc45,
    "patch-camelyon": patch_camelyon,
    "retinopathy": retinopathy,
}
