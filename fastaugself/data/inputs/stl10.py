"""STL10 in its published format: stl10_binary/ with train_X.bin, train_y.bin, test_X.bin, ... and unlabeled_X.bin.

A file holds photos of 96 x 96 pixels back to back, each as three planes (red, green, blue) in column-major order
(Coates 2011, "An Analysis of Single Layer Networks in Unsupervised Feature Learning"; layout: its web page).
"""

import os
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UsageError
from .samples import Columns, Sample, Samples, fingerprint, read_file

SIDE = 96  # pixels
_BYTES = 3 * SIDE * SIDE
_NAMES = "class_names.txt"
_PRETRAINING = ("train_X.bin", "unlabeled_X.bin")


class Stl10Samples(Samples):
    """The photos of one or two STL10 files, stored as raw pixels: JPEG would lose detail again at this size.

    Labels are those of train_y.bin and test_y.bin, starting at 0; -1 for the unlabelled photos.
    """

    def __init__(self, source: str, files: list[Path], columns: Columns):
        self.source, self._files = source, files
        self._sizes = [path.stat().st_size for path in files]
        for path, size in zip(files, self._sizes, strict=True):
            if size % _BYTES or not size:
                raise RunError(
                    f"{path} has {size} bytes, not a multiple of the {_BYTES} of a photo: is the download complete?"
                )
        self._counts = [size // _BYTES for size in self._sizes]
        self.count = sum(self._counts)
        self.classes = _class_names(files[0].parent)
        unlabelled = columns.label == "none"
        self._labels = [
            label
            for path, count in zip(files, self._counts, strict=True)
            for label in ([-1] * count if unlabelled else _labels(path, count, len(self.classes)))
        ]
        times = [path.stat().st_mtime_ns for path in files]
        self.fingerprint = fingerprint([*(path.name for path in files), self._sizes, times, self._labels, self.classes])

    def samples(self, start: int = 0) -> Generator[Sample]:
        number = 0
        for path, size, count in zip(self._files, self._sizes, self._counts, strict=True):
            for i in range(count):
                if number >= start:
                    name, place = f"{path.stem}/{i:06d}", f"photo {i} of {path}"
                    yield Sample(name, self._labels[number], place, partial(_pixels, path, size, i))
                number += 1


def open_stl10(source: str, columns: Columns) -> Samples | None:
    """Opens the photos for pretraining (train and unlabelled) of a folder in this format, or one of its X.bin files."""
    path = Path(source)
    if path.is_dir() and (path / _PRETRAINING[1]).exists():
        files = [path / name for name in _PRETRAINING]
        if not files[0].exists():
            raise UsageError(f"{source} has no {_PRETRAINING[0]}; pass {files[1]} for the unlabelled photos alone")
        return Stl10Samples(source, files, columns)
    return Stl10Samples(source, [path], columns) if path.is_file() and path.name.endswith("_X.bin") else None


def _pixels(path: Path, size: int, number: int) -> NDArray[np.uint8]:
    data = read_file(path, size, start=number * _BYTES, length=_BYTES)
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(3, SIDE, SIDE).transpose(2, 1, 0))


def _labels(path: Path, count: int, classes: int) -> list[int]:
    """Labels starting at 0 from the matching y.bin file; -1 for the unlabelled photos."""
    labels_path = path.with_name(path.name.replace("_X.bin", "_y.bin"))
    if not labels_path.exists():
        if not path.name.startswith("unlabeled"):
            raise UsageError(f"{path}: {labels_path.name} is missing; pass --label-column none to ignore labels")
        return [-1] * count
    labels = np.frombuffer(labels_path.read_bytes(), np.uint8)
    if len(labels) != count or labels.min() < 1 or labels.max() > (classes or 10):
        raise RunError(
            f"{labels_path} holds {len(labels)} labels from {labels.min(initial=255)} to {labels.max(initial=0)}, "
            f"expected {count} from 1 to {classes or 10}: is the download complete?"
        )
    return [int(label) - 1 for label in labels]


def _class_names(folder: Path) -> list[str]:
    try:
        return os.fsdecode((folder / _NAMES).read_bytes()).split()
    except FileNotFoundError:
        return []
