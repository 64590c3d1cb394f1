"""Readers of class folders with optional targets, and of `.beton` files.

Layouts: `ROOT/train/CLASS/*.jpg` with `test` and optionally `val` beside `train` (a lone `val` is the test split), or
`ROOT/CLASS/*.jpg` without splits. A file `targets.csv` in the folder of a split holds targets: a column `file` with
paths relative to that folder, and numeric columns; columns `left,top,right,bottom` are boxes.
"""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.beton.format import Beton
from ...data.inputs.folder import list_photos
from ...data.loader import Loader
from ...data.readers.native import decode_into
from ...errors import RunError, UsageError
from ..cache import key_of
from ..splits import Dataset, Files, Floats, Labels, Split, cut_by_class

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
BOX = ("left", "top", "right", "bottom")
SEED = 0  # of the random splits of data without splits


def read(root: Path) -> Dataset:
    """Reads class folders at `root`. Raises UsageError for a file, and for a train or test folder without the other."""
    if not root.is_dir():
        raise UsageError(f"{root} is a file: pass a folder of class folders, or name the --dataset")
    found = {
        name: next(root / folder for folder in names if (root / folder).is_dir())
        for name, names in SPLITS.items()
        if any((root / folder).is_dir() for folder in names)
    }
    if "val" in found and "test" not in found and "train" in found:
        found["test"] = found.pop("val")
    if "train" in found and "test" in found:
        return _with_splits(root, found)
    if found:
        raise UsageError(
            f"{root} has {', '.join(path.name for path in found.values())} but not both train and test: add the "
            f"missing one, or pass a folder with class folders only"
        )
    whole, classes, names = _split(root, ())
    if not classes:
        return _dataset(root, (), {"all": whole}, names, "no splits")
    return split_by_class(_dataset(root, classes, {"all": whole}, names, ""))


def split_by_class(dataset: Dataset, *, seed: int = SEED) -> Dataset:
    """Splits each class of a data set without splits into train (64 %), val (16 %) and test (20 %)."""
    whole = dataset.splits["all"]
    rest, test = cut_by_class(whole.labels_N, 0.2, seed=seed)
    train, val = cut_by_class(whole.labels_N[rest], 0.2, seed=seed)
    splits = {"all": whole, "train": whole.take(rest[train]), "val": whole.take(rest[val]), "test": whole.take(test)}
    how = f"64/16/20 % of each class, seed {seed}"
    return Dataset(
        dataset.name, dataset.classes, splits, dataset.metric, dataset.kind, dataset.target_names, "all", how
    )


def _with_splits(root: Path, found: dict[str, Path]) -> Dataset:
    classes = tuple(sorted({c for path in found.values() for c in list_photos(path).classes}))
    read = {name: _split(path, classes) for name, path in found.items()}
    splits = {name: split for name, (split, _, _) in read.items()}
    targets = {columns for _, _, columns in read.values()}
    if len(targets) > 1:
        raise UsageError(f"{root}: the targets.csv of the splits have different columns: {sorted(targets)}")
    return _dataset(root, classes, splits, targets.pop(), "folders " + ", ".join(path.name for path in found.values()))


def _dataset(
    root: Path, classes: tuple[str, ...], splits: dict[str, Split], columns: tuple[str, ...], how: str
) -> Dataset:
    kind = "" if not columns else "boxes" if columns == BOX else "values"
    return Dataset(root.resolve().name, classes, splits, kind=kind, target_names=columns, how=how)  # type: ignore[arg-type]


def _split(folder: Path, classes: tuple[str, ...]) -> tuple[Split, tuple[str, ...], tuple[str, ...]]:
    """(samples, classes, target columns) of a folder. classes: names by label, default the folder's own."""
    listed = list_photos(folder)
    classes = classes or tuple(listed.classes)
    index = {name: i for i, name in enumerate(classes)}
    labels_N = np.array([index[listed.classes[label]] if label >= 0 else -1 for label in listed.labels], np.int64)
    targets_NT, columns = read_targets(folder / "targets.csv", listed.files)
    return Split(Files(folder, listed.files), labels_N, targets_NT, listed.files), classes, columns


def read_targets(path: Path, files: list[str]) -> tuple[Floats | None, tuple[str, ...]]:
    """Targets of `files` [N, T] and their column names from a targets.csv; (None, ()) if it does not exist.

    Raises UsageError for a file without a row, and for values that are not numbers.
    """
    if not path.exists():
        return None, ()
    with open(path, newline="") as text:
        reader = csv.DictReader(text)
        columns = tuple(name for name in reader.fieldnames or () if name != "file")
        if "file" not in (reader.fieldnames or ()) or not columns:
            raise UsageError(f"{path} needs a column `file` and at least one numeric column, got {reader.fieldnames}")
        try:
            rows = {row["file"]: [float(row[name]) for name in columns] for row in reader}
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path} holds a target that is not a number ({error})") from None
    missing = [name for name in files if name not in rows]
    if missing:
        raise UsageError(f"{path} has no row for {missing[0]} and {len(missing) - 1} more photos")
    if set(BOX) == set(columns):
        return np.array([[rows[name][columns.index(c)] for c in BOX] for name in files], np.float64), BOX
    return np.array([rows[name] for name in files], np.float64), columns


@dataclass(frozen=True)
class BetonImages:
    """The photos of a `.beton` file."""

    path: Path

    @cached_property
    def beton(self) -> Beton:
        """The open file."""
        return Beton(self.path)

    def __len__(self) -> int:
        return self.beton.num_samples

    def open(self, index: int) -> Image.Image:
        height, width = self.beton.sizes_N2[index].tolist()
        pixels = np.empty(height * width * 3, np.uint8)
        fault = decode_into(self.beton, index, pixels, exact=True)
        if fault is not None:
            raise RunError(f"{self.path}: sample {index} cannot be decoded ({fault}); copy or write the file again")
        return Image.fromarray(pixels.reshape(height, width, 3))

    def digest(self, memo: Path | None) -> str:
        return key_of(Files(self.path.parent, [self.path.name]).digest(memo))


def read_beton(path: Path) -> Dataset:
    """Reads a `.beton` file as one split `all`, also split into train, val and test if it has labels.

    The columns of its sidecar file, such as positions of crops, are the targets.
    """
    with Loader(path, batch_size=1, source="native", order="sequential", drop_last=False) as loader:
        labels_N: Labels = loader.labels_N.astype(np.int64)
        classes, columns = tuple(loader.classes), loader.columns
    names = tuple(sorted(columns))
    targets_NT = np.array([columns[name] for name in names], np.float64).T if names else None
    whole = Split(BetonImages(path), labels_N, targets_NT, [f"sample {i}" for i in range(len(labels_N))])
    dataset = Dataset(
        path.stem, classes, {"all": whole}, kind="values" if names else "", target_names=names, how="no splits"
    )
    return split_by_class(dataset) if labels_N.min() >= 0 else dataset
