"""Data sets by name: the papers' data sets in their original files, class folders, and .beton files."""

import difflib
from collections.abc import Callable
from pathlib import Path

from ...errors import UsageError
from ..splits import Dataset
from . import bench3d, classes, folders, shifted, structured, targets, vtab

Reader = Callable[[Path], Dataset]


def readers() -> dict[str, Reader]:
    """All readers by their name for `--dataset`."""
    return {
        "folders": folders.read,
        "beton": folders.read_beton,
        **classes.READERS,
        **targets.READERS,
        **vtab.READERS,
        **structured.READERS,
        **bench3d.READERS,
        **shifted.READERS,
    }


def read_dataset(path: Path, name: str = "") -> Dataset:
    """Reads the data set `name` from the files at `path`; default: `.beton` files or class folders.

    Raises UsageError for an unknown name, and for files that are not laid out as expected.
    """
    known = readers()
    beton = path.suffix == ".beton" or (path / "train.beton").is_file()
    name = name or ("beton" if beton else "folders")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UsageError(f"--dataset {name} is unknown{hint} Known: {', '.join(known)}")
    if not path.exists():
        raise UsageError(
            f"--data {path}: no such file or folder; pass a folder with one folder per class, a .beton file, or with "
            "--dataset the files of a data set"
        )
    return known[name](path)
