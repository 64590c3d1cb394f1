"""Readers of class folders with optional targets, and of `.beton` files.

Layouts: `ROOT/train/CLASS/*.jpg` with `test` and optionally `val` beside `train` (a lone `val` is the test split), or
`ROOT/CLASS/*.jpg` without splits. A file `targets.csv` in the folder of a split holds targets: a column `file` with
paths relative to that folder, and numeric columns; columns `left,top,right,bottom` are boxes.
"""

import csv
import dataclasses
import io
import itertools
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from ...data.beton.format import Beton
from ...data.elsewhere import instead_of_file, is_source
from ...data.inputs.folder import SPLITS, list_photos, split_of
from ...data.inputs.samples import some
from ...data.inputs.walk import EXTENSIONS, is_visible
from ...data.loader import Loader
from ...data.readers.native import decode_into
from ...errors import RunError, UsageError
from ...files import read_text
from ..cache import key_of
from ..splits import Dataset, Files, Floats, Labels, Split, cut_by_class

BOX = ("left", "top", "right", "bottom")
SEED = 0  # of the random splits of data without splits


def read(root: Path) -> Dataset:
    """Reads class folders at `root`. Raises UsageError for a file, and for a train or test folder without the other."""
    if not root.is_dir():
        other = f"; of this file, {instead_of_file(root)}" if is_source(root) else ""
        raise UsageError(f"{root} is a file: pass a folder of class folders, or name the --dataset{other}")
    found = _split_folders(root)
    if "val" in found and "test" not in found and "train" in found:
        found["test"] = found.pop("val")
    if "train" in found and "test" in found:
        return _with_splits(root, found)
    if found:
        raise UsageError(
            f"{root} has {', '.join(path.name for path in found.values())} but not both train and test: add the "
            f"missing one, or pass a folder with class folders only"
        )
    whole = _read(root, ())
    if not whole.classes:
        return _dataset(root, whole, {"all": whole.split}, "no splits")
    return split_by_class(_dataset(root, whole, {"all": whole.split}, ""))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits, if the folders in `root` are splits; {} if they are classes, whatever their names."""
    folders = sorted(path for path in root.iterdir() if is_visible(path.name) and path.is_dir())
    found: dict[str, Path] = {}
    for path in folders:
        if (name := split_of(path.name)) and found.setdefault(name, path) is not path:
            raise UsageError(f"{root} has both {found[name].name} and {path.name}: remove or rename one of the two")
    found = {name: found[name] for name in SPLITS if name in found}
    for first, second in itertools.combinations(found.values(), 2):
        if first.samefile(second):
            raise UsageError(f"{second} is the same folder as {first}: remove one of the two")
    classes = [path for path in folders if split_of(path.name) is None and _holds_photos(path, below=True)]
    if not found or len(found) == len(folders):
        return found
    if any(_holds_photos(path, below=False) for path in found.values()) or (classes and len(found) == 1):
        return {}
    if classes:
        names = ", ".join(path.name for path in found.values())
        raise UsageError(
            f"{root} holds {classes[0].name} next to {names}, so it may be a class or the others splits: move "
            f"{classes[0]} elsewhere if they are splits, or rename them if all are classes"
        )
    return found


def _holds_photos(folder: Path, *, below: bool) -> bool:
    """Whether there is a photo in a folder; below: or anywhere below it."""
    for _, inside, files in os.walk(folder):
        if any(is_visible(name) and os.path.splitext(name)[1].lower() in EXTENSIONS for name in files):
            return True
        if not below:
            return False
        inside[:] = filter(is_visible, inside)
    return False


def split_by_class(dataset: Dataset, *, seed: int = SEED) -> Dataset:
    """Splits each class of a data set without splits into train (64 %), val (16 %) and test (20 %)."""
    whole = dataset.splits["all"]
    rest, test = cut_by_class(whole.labels_N, 0.2, seed=seed)
    train, val = cut_by_class(whole.labels_N[rest], 0.2, seed=seed)
    splits = {"all": whole, "train": whole.take(rest[train]), "val": whole.take(rest[val]), "test": whole.take(test)}
    how = f"64/16/20 % of each class, seed {seed}"
    return dataclasses.replace(dataset, splits=splits, episodes="all", how=how)


class _Folder(NamedTuple):
    """A folder that was read. columns: of its targets. notes: what may be photos but is not read."""

    split: Split
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def _with_splits(root: Path, found: dict[str, Path]) -> Dataset:
    classes = tuple(sorted({c for path in found.values() for c in list_photos(path).classes}))
    read = {name: _read(path, classes) for name, path in found.items()}
    if len(columns := {folder.columns for folder in read.values()}) > 1:
        raise UsageError(f"{root}: the targets.csv of the splits have different columns: {sorted(columns)}")
    splits = {name: folder.split for name, folder in read.items()}
    notes = tuple(note for folder in read.values() for note in folder.notes)
    how = "folders " + ", ".join(path.name for path in found.values())
    return _dataset(root, read["train"]._replace(notes=notes), splits, how)


def _dataset(root: Path, read: _Folder, splits: dict[str, Split], how: str) -> Dataset:
    return Dataset(
        root.resolve().name,
        read.classes,
        splits,
        kind="" if not read.columns else "boxes" if read.columns == BOX else "values",
        target_names=read.columns,
        how=how,
        notes=read.notes,
    )


def _read(folder: Path, classes: tuple[str, ...]) -> _Folder:
    """Reads a folder. classes: names by label, default the folder's own. Raises RunError for a file that is gone."""
    listed = list_photos(folder)
    if listed.faults:
        raise RunError(listed.faults[min(listed.faults)])
    classes = classes or tuple(listed.classes)
    index = {name: i for i, name in enumerate(classes)}
    labels_N = np.array([index[listed.classes[label]] if label >= 0 else -1 for label in listed.labels], np.int64)
    targets_NT, columns = read_targets(folder / "targets.csv", listed.files)
    left_out = listed.left_out
    notes = (f"{len(left_out)} in {folder} not read, which may be photos: {some(left_out)}",) if left_out else ()
    return _Folder(Split(Files(folder, listed.files), labels_N, targets_NT, listed.files), classes, columns, notes)


def read_targets(path: Path, files: list[str]) -> tuple[Floats | None, tuple[str, ...]]:
    """Targets of `files` [N, T] and their column names from a targets.csv; (None, ()) if it does not exist.

    Raises UsageError for a file without a row, and for values that are not numbers.
    """
    if not path.exists():
        return None, ()
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        names = tuple(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({error}): expected a table with commas, in UTF-8") from None
    columns = tuple(name for name in names if name != "file")
    if "file" not in names or not columns:
        raise UsageError(
            f"{path} needs a column `file` and at least one numeric column, separated by commas, got {list(names)}"
        )
    try:
        rows = {row["file"]: [float(row[name]) for name in columns] for row in reader}
    except (ValueError, TypeError, csv.Error) as error:
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
    """Reads a `.beton` file as one split `all`, also split into train, val and test if it has labels; or a folder with
    train.beton, val.beton and test.beton, where a lone val.beton is the test split.

    The columns of the sidecar files, such as positions of crops, are the targets.
    """
    if path.is_dir():
        return _read_beton_splits(path)
    dataset = _read_beton(path)
    return split_by_class(dataset) if dataset.splits["all"].labels_N.min() >= 0 else dataset


def _read_beton(path: Path) -> Dataset:
    """The photos of a `.beton` file as the split `all`."""
    with Loader(path, batch_size=1, source="native", order="sequential", drop_last=False) as loader:
        labels_N: Labels = loader.labels_N.astype(np.int64)
        classes, columns = tuple(loader.classes), loader.columns
    names = tuple(sorted(columns))
    targets_NT = np.array([columns[name] for name in names], np.float64).T if names else None
    whole = Split(BetonImages(path), labels_N, targets_NT, [f"sample {i}" for i in range(len(labels_N))])
    kind: Literal["values", ""] = "values" if names else ""
    return Dataset(path.stem, classes, {"all": whole}, kind=kind, target_names=names, how="no splits")


def _read_beton_splits(root: Path) -> Dataset:
    found = {name: root / f"{name}.beton" for name in SPLITS if (root / f"{name}.beton").is_file()}
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    if not {"train", "test"} <= found.keys():
        raise UsageError(
            f"{root} has {', '.join(path.name for path in found.values()) or 'no .beton file of a split'}: expected "
            "train.beton and test.beton (or val.beton)"
        )
    read = {name: _read_beton(path) for name, path in found.items()}
    train = read["train"]
    index = {name: i for i, name in enumerate(train.classes)}
    splits = {}
    for name, dataset in read.items():
        if dataset.target_names != train.target_names:
            raise UsageError(f"{found[name]} has other columns than {found['train']}: write both files in the same way")
        whole = dataset.splits["all"]
        numbers_C = np.array([*(index.get(c, -1) for c in dataset.classes), -1], np.int64)  # the last of label -1
        labels_N = numbers_C[whole.labels_N]
        unknown = np.flatnonzero((labels_N < 0) & (whole.labels_N >= 0))
        if len(unknown):
            raise UsageError(
                f"{found[name]} has photos of class {dataset.classes[whole.labels_N[unknown[0]]]}, which "
                f"{found['train']} lacks: write both files with the same --classes"
            )
        splits[name] = dataclasses.replace(whole, labels_N=labels_N)
    how = "files " + ", ".join(path.name for path in found.values())
    return dataclasses.replace(train, name=root.resolve().name, splits=splits, how=how)
