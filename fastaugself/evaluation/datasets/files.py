"""Helpers of the data set readers: required files, lists, MATLAB and pickle files, and random splits."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import RunError, UsageError
from ...files import read_text
from ..splits import Files, Floats, Split, cut, cut_by_class


def need(root: Path, name: str, *paths: str, layout: str) -> None:
    """Raises UsageError, with the expected layout, if one of `paths` is missing in `root`."""
    for path in paths:
        if not (root / path).exists():
            raise UsageError(f"{root} is not {name} as expected: {path} is missing; expected {_one_line(layout)}")


def lines(path: Path) -> list[str]:
    """The non-empty lines of a text file; UsageError if there are none, RunError if it cannot be read."""
    try:
        found = [line.strip() for line in read_text(path).splitlines()]
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    found = [line for line in found if line]
    if not found:
        raise UsageError(f"{path} is empty")
    return found


def labelled(
    root: Path,
    entries: Sequence[tuple[str, str]],
    classes: Sequence[str],
    *,
    targets_NT: Floats | None = None,
    boxes: Sequence[tuple[float, float, float, float]] | None = None,
) -> Split:
    """A split from entries (path relative to root, class name); the class "" is unlabelled.

    classes: names by label. targets_NT: of the samples. boxes: crop of each image, see `Files`.
    Raises UsageError for no entries, an unknown class, and if the first or the last file is missing.
    """
    if not entries:
        raise UsageError(f"{root}: a split has no images")
    for name in (entries[0][0], entries[-1][0]):
        if not (root / name).exists():
            raise UsageError(f"{root / name} is listed but missing: is the data set complete?")
    index = {name: i for i, name in enumerate(classes)}
    unknown = [kind for _, kind in entries if kind and kind not in index]
    if unknown:
        raise UsageError(f"{root}: class {unknown[0]} is in one list but not in the other: is the data set complete?")
    labels_N = np.array([index[kind] if kind else -1 for _, kind in entries], np.int64)
    names = [name for name, _ in entries]
    return Split(Files(root, names, boxes), labels_N, targets_NT, names)


def cut_val(train: Split, number: int, total: int, *, seed: int) -> dict[str, Split]:
    """train and val as drawn by torch's random_split: `number` of `total` samples, scaled if `train` has fewer."""
    number = number if len(train) == total else max(1, round(number * len(train) / total))
    kept, held_out = cut(len(train), number, seed=seed)
    return {"train": train.take(kept), "val": train.take(held_out)}


def cut_val_by_class(train: Split, each: int, *, seed: int) -> dict[str, Split]:
    """train and val, with `each` samples of every class in val."""
    kept, held_out = cut_by_class(train.labels_N, each, seed=seed)
    return {"train": train.take(kept), "val": train.take(held_out)}


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError(f"{path} is a MATLAB file, which needs scipy: pip install scipy ({error})") from None
    try:
        return loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:
        raise RunError(f"{path} cannot be read as a MATLAB file ({error}); copy it again") from None


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can only build NumPy arrays and plain values."""

    KNOWN = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
        | {(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")}
        | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[str, Any]:
    """Reads a pickled dictionary of arrays, lists and text; a pickle that would call anything else is a RunError."""

    def load(file: BinaryIO) -> Any:
        return _ArraysOnly(file, encoding="bytes").load()

    try:
        with open(path, "rb") as file:
            found = load(file)
    except Exception as error:
        raise RunError(f"{path} is not a pickle of arrays ({error}); copy it again from its source") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} holds {type(found).__name__}, expected a dictionary: copy it again from its source")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())
