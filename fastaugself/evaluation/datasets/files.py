"""What the readers share: files that must be there, lists, tables, and the splits that the papers drew by seed."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import RunError, UsageError
from ..splits import Files, Floats, Split, cut, cut_by_class


def need(root: Path, name: str, *paths: str, layout: str) -> None:
    """Refuses a folder in which one of the paths is missing, with what is expected there."""
    for path in paths:
        if not (root / path).exists():
            raise UsageError(f"{root} is not {name} as expected: {path} is missing; expected {_one_line(layout)}")


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty; UsageError where there are none."""
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
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
    """Samples from (file below root, class name); "" is no class. A first file that is missing is refused."""
    if not entries:
        raise UsageError(f"{root}: a split has no images")
    for name in (entries[0][0], entries[-1][0]):
        if not (root / name).exists():
            raise UsageError(f"{root / name} is listed but missing: is the data set whole?")
    index = {name: i for i, name in enumerate(classes)}
    unknown = [kind for _, kind in entries if kind and kind not in index]
    if unknown:
        raise UsageError(f"{root}: class {unknown[0]} is in one list and not in the other")
    labels_N = np.array([index[kind] if kind else -1 for _, kind in entries], np.int64)
    names = [name for name, _ in entries]
    return Split(Files(root, names, boxes), labels_N, targets_NT, names)


def cut_val(train: Split, out: int, total: int, *, seed: int) -> dict[str, Split]:
    """train and val as torch's random_split deals them: `out` of `total`, in proportion where the data are fewer."""
    number = out if len(train) == total else max(1, round(out * len(train) / total))
    stay, leave = cut(len(train), number, seed=seed)
    return {"train": train.take(stay), "val": train.take(leave)}


def cut_val_by_class(train: Split, each: int, *, seed: int) -> dict[str, Split]:
    """train and val with `each` samples of every class in val."""
    stay, leave = cut_by_class(train.labels_N, each, seed=seed)
    return {"train": train.take(stay), "val": train.take(leave)}


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError(f"{path} is a MATLAB file, which takes scipy: pip install scipy ({error})") from None
    try:
        return loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:
        raise RunError(f"{path} is not a MATLAB file that can be read ({error}); copy it again") from None


class _ArraysOnly(pickle.Unpickler):
    """Of the names that a pickle may call, only those that arrays are made of."""

    KNOWN = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
        | {(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")}
        | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of arrays, lists and text, its keys as text; whatever else a pickle could do is refused."""

    def load(file: BinaryIO) -> Any:
        return _ArraysOnly(file, encoding="bytes").load()

    try:
        with open(path, "rb") as file:
            found = load(file)
    except Exception as error:
        raise RunError(f"{path} is not a pickle of arrays ({error}); copy it again from its source") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} holds {type(found).__name__} instead of a dictionary")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())
