"""Images in the containers of their authors: grey arrays, HDF5 files, and records of TensorFlow.

Shape suffixes: N images, H W.
"""

import hashlib
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data.inputs.opening import upright_rgb
from ...errors import RunError, UsageError, of_the_system
from ..splits import Files


@dataclass(frozen=True)
class GreyArrays:
    """Grey images in memory, uint8 [N, H, W]. factor: of their values, for 0 to 255."""

    pixels_NHW: NDArray[np.uint8]
    factor: int = 1

    def __len__(self) -> int:
        return len(self.pixels_NHW)

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels_NHW[index] * np.uint8(self.factor)).convert("RGB")

    def digest(self, memo: Path | None) -> str:
        digest = hashlib.blake2b(f"{self.pixels_NHW.shape} {self.factor}".encode(), digest_size=16)
        for image_HW in self.pixels_NHW:
            digest.update(image_HW.tobytes())
        return digest.hexdigest()


def hdf5(path: Path) -> Any:
    """An open HDF5 file. Raises UsageError without h5py, RunError for a file that cannot be read."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"{path} is an HDF5 file, which needs h5py: pip install h5py ({error})") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RunError(f"{path} cannot be read as an HDF5 file ({error}); copy it again") from None


@dataclass(frozen=True)
class Hdf5Images:
    """RGB images uint8 [N, H, W, 3] in a data set of an HDF5 file, read one by one."""

    path: Path
    key: str

    @cached_property
    def _data(self) -> Any:
        file = hdf5(self.path)
        data = file.get(self.key)
        if data is None or data.ndim != 4 or data.shape[3] != 3 or data.dtype != np.uint8:
            raise RunError(f"{self.path} does not hold images uint8 [N, H, W, 3] as {self.key}; copy it again")
        return data

    def __len__(self) -> int:
        return len(self._data)

    def open(self, index: int) -> Image.Image:
        try:
            return Image.fromarray(self._data[index])
        except OSError as error:
            raise RunError(f"{self.path}: image {index} cannot be read ({error}); copy it again") from None

    def digest(self, memo: Path | None) -> str:
        return Files(self.path.parent, [self.path.name]).digest(memo)


@dataclass(frozen=True)
class RecordImages:
    """Encoded images in files of TensorFlow's records. places: (file, offset, bytes) of each image."""

    files: Sequence[Path]
    places: Sequence[tuple[int, int, int]]

    def __len__(self) -> int:
        return len(self.places)

    def open(self, index: int) -> Image.Image:
        number, offset, length = self.places[index]
        try:
            with open(self.files[number], "rb") as file:
                file.seek(offset)
                return upright_rgb(Image.open(io.BytesIO(file.read(length))))
        except OSError as error:
            raise RunError(f"{self.files[number]}: image {index} cannot be read ({of_the_system(error)})") from None

    def digest(self, memo: Path | None) -> str:
        return Files(self.files[0].parent, [path.name for path in self.files]).digest(memo)


def read_records(files: Sequence[Path], *, image: str, label: str) -> tuple[RecordImages, NDArray[np.int64]]:
    """The images and labels of files of TensorFlow's records with `tf.train.Example` messages.

    image, label: names of the features with the encoded image and the class number. Only positions are kept in memory.
    Raises RunError for a file that is damaged, or lacks a feature.
    """
    places, labels = [], []
    for number, path in enumerate(files):
        for start, message in _records(path):
            try:
                features = _example(message)
                offset, length = features[image]
                labels.append(_varint(message, features[label][0])[0])
            except (KeyError, IndexError, ValueError) as error:
                raise RunError(f"{path}: the record at byte {start} has no {image} and {label} ({error!r})") from None
            places.append((number, start + offset, length))
    return RecordImages(list(files), places), np.array(labels, np.int64)


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(position, message) of each record: its length and a checksum, the message, and a checksum."""
    with open(path, "rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            start = file.tell()
            message = file.read(length) if 0 <= length < 1 << 31 else b""
            if len(message) != length or len(file.read(4)) != 4:
                raise RunError(f"{path} is cut or damaged at byte {start - 12}; copy it again")
            yield start, message


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each length-delimited or varint field of a protocol-buffer message in `data`."""
    at = start
    while at < end:
        tag, at = _varint(data, at)
        if tag & 7 == 2:
            length, at = _varint(data, at)
            yield tag >> 3, at, at + length
            at += length
        elif tag & 7 == 0:
            _, after = _varint(data, at)
            yield tag >> 3, at, after
            at = after
        else:
            at += {1: 8, 5: 4}[tag & 7]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _example(data: bytes) -> dict[str, tuple[int, int]]:
    """Offset and length of the first value of every feature: Example.features.feature is a map of value lists."""
    found: dict[str, tuple[int, int]] = {}
    for _, start, end in _fields(data, 0, len(data)):
        for _, entry, entry_end in _fields(data, start, end):
            parts = {number: (a, b) for number, a, b in _fields(data, entry, entry_end)}
            key_start, key_end = parts[1]
            for _, list_start, list_end in _fields(data, *parts[2]):
                for _, a, b in _fields(data, list_start, list_end):
                    found.setdefault(data[key_start:key_end].decode(), (a, b - a))
    return found
