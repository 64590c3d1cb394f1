"""The `.beton` container, version 2 (FFCV 1.0): its layout, and a reader that validates the structure on opening.

    header | field descriptors | metadata (one record per sample) | image data | allocation table (up to the file's end)

FFCV itself does not validate files: a truncated file silently gives zero or stale pixels. The layout follows
ffcv/types.py; this reader does not import ffcv.

Shape suffixes: N samples, A allocation records, 2 = (height, width).
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UsageError
from ..elsewhere import instead_of_file, instead_of_folder, instead_of_photo, matches, write_it

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
JPEG, RAW = 0, 1  # values of `mode`
MAX_SIDE = 65535  # width and height are uint16

TYPE_INT, TYPE_IMAGE = 1, 2
_BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])
_METADATA: dict[int, Any] = {0: "<f8", TYPE_INT: "<i8", TYPE_IMAGE: IMAGE, 3: _BYTES, 4: "<u8", 5: _BYTES, 6: "<u8"}

# A Huffman-coded JPEG has at least one bit per 8x8 block of its finest component. A larger size in the index is wrong
# and would only make us allocate memory.
_PIXELS_PER_BYTE = 512
_CHUNK = 1 << 15  # records per read
_MAGIC = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"BM": "a BMP image",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
}


_REMEDY = "copy or write it again"
_MAX_FAULTS = 1000  # listed per kind of fault


class Fault(NamedTuple):
    """A fault of one sample. what: its description, a predicate to "sample 5"."""

    sample: int
    what: str


def metadata_type(type_ids: list[int]) -> np.dtype[Any]:
    """The dtype of a metadata record, with fields `f0`, `f1`, ... in the order of the field descriptors."""
    return np.dtype([("", _METADATA[t]) for t in type_ids], align=True)


class Beton:
    """An open `.beton` file with a valid structure.

    path: the file. Opening it reads the metadata and the allocation table (56 bytes per sample), but no image. faults:
    a list to which the faults of single samples are appended; without it, the first fault is raised as a RunError.

    Attributes. num_samples: number of samples N. page_size: bytes. field_names: names of all fields. image_field: name
    of the image field that is read. data_start, table_start: the byte range of the image data.
    pointers_N, bytes_N: int64, byte offset and length of each image's data in the file.
    modes_N: uint8, JPEG or RAW. sizes_N2: int32, (height, width) in pixels. labels_N: int64, -1 without a label.
    index_crc32: CRC-32 of everything before the image data; identifies the file.

    Raises UsageError if the file is not a `.beton` file, RunError if it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, faults: list[Fault] | None = None):
        self.path = Path(path)
        self._fd = _open(self.path)
        try:
            self._stat = os.fstat(self._fd)
            found = self._read_index()
            if faults is not None:
                faults += found
            elif found:
                others = f" ({len(found) - 1} more such faults)" if len(found) > 1 else ""
                raise RunError(f"{self.path} is damaged: sample {found[0].sample} {found[0].what}{others}; {_REMEDY}")
        except BaseException:
            self.close()
            raise

    def _read_index(self) -> list[Fault]:
        path, size = self.path, self._stat.st_size
        header = _read_header(self._fd, path, size)
        self.num_samples, self.page_size = int(header["num_samples"]), int(header["page_size"])
        table_start = int(header["alloc_table_ptr"])
        descriptors_end = HEADER.itemsize + int(header["num_fields"]) * FIELD.itemsize
        if size < descriptors_end:
            raise RunError(f"{path} is truncated: {size} bytes end inside its header; copy or write it again")
        fields = np.frombuffer(self._read_at(HEADER.itemsize, descriptors_end - HEADER.itemsize), FIELD)
        type_ids = [int(t) for t in fields["type_id"]]
        names = [bytes(name).split(b"\0")[0].decode("ascii", "replace") for name in fields["name"]]
        _check_fields(path, names, type_ids)

        record = metadata_type(type_ids)
        metadata_end = descriptors_end + self.num_samples * record.itemsize
        _check_extent(path, size, metadata_end, table_start, self.num_samples)
        image = _pick(names, type_ids, TYPE_IMAGE, "image")
        if image is None:
            raise RunError(f"{path} has no image field among {', '.join(names)}: write it with an RGBImageField")
        label = _pick(names, type_ids, TYPE_INT, "label")
        self.field_names, self.image_field = names, names[image]
        pointers_N = self._read_metadata(descriptors_end, record, f"f{image}", None if label is None else f"f{label}")
        starts_A = np.empty((size - table_start) // ALLOCATION.itemsize, np.int64)
        sizes_A = np.empty_like(starts_A)
        for part, records in self._records(table_start, ALLOCATION, len(starts_A)):
            starts_A[part], sizes_A[part] = records["ptr"].astype(np.int64), records["size"].astype(np.int64)
        self.data_start, self.table_start, self.pointers_N = metadata_end, table_start, pointers_N
        self.bytes_N, faults = _locate(path, pointers_N, starts_A, sizes_A, metadata_end, table_start)
        return faults + _check_images(self.modes_N, self.sizes_N2, self.bytes_N)

    def _read_metadata(self, start: int, record: np.dtype[Any], image: str, label: str | None) -> NDArray[np.int64]:
        """Fills modes_N, sizes_N2 and labels_N from the metadata records, and returns their data pointers."""
        count = self.num_samples
        self.modes_N = np.empty(count, np.uint8)
        self.sizes_N2 = np.empty((count, 2), np.int32)
        self.labels_N = np.full(count, -1, np.int64)
        pointers_N = np.empty(count, np.int64)
        self.index_crc32 = zlib.crc32(self._read_at(0, start))
        for part, records in self._records(start, record, count):
            self.index_crc32 = zlib.crc32(records.data, self.index_crc32)
            images = records[image]
            self.modes_N[part], pointers_N[part] = images["mode"], images["data_ptr"].astype(np.int64)
            self.sizes_N2[part, 0], self.sizes_N2[part, 1] = images["height"], images["width"]
            if label is not None:
                self.labels_N[part] = records[label]
        return pointers_N

    def _records(self, start: int, kind: np.dtype[Any], count: int) -> Iterator[tuple[slice, NDArray[np.void]]]:
        """Yields `count` records starting at byte `start`, in chunks, each with its slice."""
        for first in range(0, count, _CHUNK):
            part = slice(first, min(first + _CHUNK, count))
            data = self._read_at(start + first * kind.itemsize, (part.stop - first) * kind.itemsize)
            yield part, np.frombuffer(data, kind)

    def _read_at(self, start: int, length: int) -> bytes:
        # pread instead of a memory map: a lost disk or a truncated file then gives an error that can be reported, and
        # not a SIGBUS that kills the process silently.
        try:
            data = os.pread(self._fd, length, start)
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror}); is its disk there?") from error
        if len(data) != length:
            raise RunError(f"{self.path} became shorter while it was in use; copy or write it again")
        return data

    def __len__(self) -> int:
        return self.num_samples

    def read(self, sample: int) -> bytes:
        """The stored bytes of one image. Raises RunError if the disk fails or the file has become shorter."""
        return self._read_at(int(self.pointers_N[sample]), int(self.bytes_N[sample]))

    def check_unchanged(self) -> None:
        """Raises RunError if the file was replaced, truncated or rewritten since it was opened."""
        try:
            self._compare(os.stat(self.path))
        except OSError as error:
            raise RunError(f"{self.path} is gone while it was in use: {error.strerror}") from error

    def check_open_file(self) -> None:
        """Like `check_unchanged`, but for the open file descriptor: the file may have been renamed or unlinked."""
        try:
            self._compare(os.fstat(self._fd))
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror}); is its disk there?") from error

    def _compare(self, now: os.stat_result) -> None:
        for key in ("st_dev", "st_ino", "st_size", "st_mtime_ns"):
            if getattr(now, key) != getattr(self._stat, key):
                raise RunError(
                    f"{self.path} changed while it was in use ({self._stat.st_size} bytes at open, "
                    f"{now.st_size} now): restart the command, and write new data under another name"
                )

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode; equal for two names of the same file."""
        return self._stat.st_dev, self._stat.st_ino

    def fileno(self) -> int:
        """The open file descriptor."""
        return self._fd

    def close(self) -> None:
        """Closes the file; the arrays stay available."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Beton":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> int:
    if path.is_dir():
        instead = instead_of_folder(path, training=False) or write_it(path)
        raise UsageError(f"{path} is a folder, not a .beton file: {instead}")
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        if match := matches(path):
            raise UsageError(f"{path} is a pattern, and one file is expected: pass one, such as {match}") from None
        raise UsageError(f"{path}: no such file; `fastaugself write FOLDER {path}` creates it from photos") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from error


def _read_header(fd: int, path: Path, size: int) -> np.void:
    start = os.pread(fd, HEADER.itemsize, 0)
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            instead = instead_of_photo(path) if what.endswith("image") else instead_of_file(path)
            raise UsageError(f"{path} is not a .beton file but {what}: {instead}")
    if size == 0:
        raise RunError(f"{path} is empty (0 bytes): write it again")
    if size < HEADER.itemsize:
        raise UsageError(
            f"{path} is not a .beton file, {size} bytes are fewer than its header of {HEADER.itemsize}: "
            f"{instead_of_file(path)}"
        )
    header: np.void = np.frombuffer(start, HEADER)[0]
    version, fields = int(header["version"]), int(header["num_fields"])
    if version != VERSION and 1 <= version <= 9 and 1 <= fields <= 64:
        raise RunError(
            f"{path} is a .beton file of version {version}: only version {VERSION} (FFCV 1.0) can be read; "
            f"write it again with `fastaugself write`"
        )
    if version != VERSION or not 1 <= fields <= 64:
        raise UsageError(
            f"{path} is not a .beton file (version field {version}, {fields} fields): {instead_of_file(path)}"
        )
    if int(header["alloc_table_ptr"]) == 0:
        raise RunError(f"{path} is incomplete: its writer was stopped before the end; write it again")
    if int(header["num_samples"]) == 0:
        raise RunError(f"{path} holds no samples: write it again from a folder with photos")
    return header


def _check_fields(path: Path, names: list[str], type_ids: list[int]) -> None:
    for name, type_id in zip(names, type_ids, strict=True):
        if type_id not in _METADATA:
            what = "a custom FFCV field" if type_id == 255 else f"of unknown type {type_id}"
            raise RunError(
                f"{path}: field '{name}' is {what}, so the length of a record is unknown; "
                f"write it with FFCV's own fields (image, int, float, bytes, json, array)"
            )


def _check_extent(path: Path, size: int, metadata_end: int, table_start: int, num_samples: int) -> None:
    if table_start < metadata_end:
        raise RunError(
            f"{path} is damaged: according to its header, the allocation table starts at byte {table_start}, inside "
            f"the metadata of {num_samples} samples (up to byte {metadata_end}); write it again"
        )
    if size <= table_start:
        part = "metadata" if size < metadata_end else "image data" if size < table_start else "allocation table"
        raise RunError(
            f"{path} is truncated in its {part}: it has {size} bytes, and its allocation table starts at byte "
            f"{table_start}; copy or write it again"
        )


def _pick(names: list[str], type_ids: list[int], type_id: int, name: str) -> int | None:
    """Index of the field of type `type_id` that is called `name`; otherwise of the only field of that type, or None."""
    found = [i for i, t in enumerate(type_ids) if t == type_id]
    named = [i for i in found if names[i] == name]
    return named[0] if named else found[0] if len(found) == 1 else None


def _locate(
    path: Path,
    pointers_N: NDArray[np.int64],
    starts_A: NDArray[np.int64],
    sizes_A: NDArray[np.int64],
    data_start: int,
    table_start: int,
) -> tuple[NDArray[np.int64], list[Fault]]:
    """Data length of each sample, from the allocation record that matches its pointer; 0 if there is no valid one."""
    if len(starts_A) == 0:
        raise RunError(f"{path} is truncated in its allocation table: it has no records; copy or write it again")
    faults: list[Fault] = []
    if np.array_equal(starts_A, pointers_N):  # written in the order of the samples
        bytes_N = sizes_A
    else:
        found_N = _find(pointers_N, starts_A)
        missing = np.flatnonzero(starts_A[found_N] != pointers_N)
        if len(missing) and len(starts_A) < len(pointers_N):
            raise RunError(
                f"{path} is truncated in its allocation table: {len(starts_A)} records for {len(pointers_N)} samples; "
                f"{_REMEDY}"
            )
        nowhere = "points to byte {}, where no data was stored"
        faults += [Fault(int(i), nowhere.format(pointers_N[i])) for i in missing[:_MAX_FAULTS]]
        bytes_N = sizes_A[found_N]
        bytes_N[missing] = 1  # any value that passes the checks below
    # The sum below cannot overflow: lengths longer than the file have been excluded by then.
    outside = (bytes_N <= 0) | (bytes_N > table_start) | (pointers_N < data_start)
    outside |= pointers_N + np.where(outside, 0, bytes_N) > table_start
    if faults:
        outside[missing] = False
        bytes_N[missing] = 0
    extent = "has an invalid extent ({} bytes at byte {}; the image data are bytes {} to {})"
    for i in np.flatnonzero(outside)[:_MAX_FAULTS]:
        faults.append(Fault(int(i), extent.format(bytes_N[i], pointers_N[i], data_start, table_start)))
    bytes_N[outside] = 0
    return bytes_N, faults


def _find(pointers_N: NDArray[np.int64], starts_A: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the allocation record that starts at each sample's pointer; an arbitrary index if there is none."""
    order_A, order_N = _order(starts_A), _order(pointers_N)
    starts_A = starts_A[order_A]
    # Looking up sorted values is ten times faster than shuffled ones, because of memory locality.
    found_N = np.empty(len(pointers_N), np.int64)
    found_N[order_N] = np.minimum(np.searchsorted(starts_A, pointers_N[order_N]), len(starts_A) - 1)
    found: NDArray[np.int64] = order_A[found_N]
    return found


def _order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices that sort `values`; fast if they are sorted already, which is the usual case."""
    if np.all(values[1:] >= values[:-1]):
        return np.arange(len(values))
    return np.argsort(values)


def _check_images(modes_N: NDArray[np.uint8], sizes_N2: NDArray[np.int32], bytes_N: NDArray[np.int64]) -> list[Fault]:
    """Faults of samples whose mode, size and length are inconsistent; samples with 0 bytes were reported before."""
    pixels_N, found_N = sizes_N2[:, 0].astype(np.int64) * sizes_N2[:, 1], bytes_N > 0
    jpeg_N, raw_N = found_N & (modes_N == JPEG), found_N & (modes_N == RAW)
    kinds = (
        (modes_N > RAW, "has an unknown storage mode"),
        (pixels_N == 0, "has a side of zero pixels"),
        (raw_N & (bytes_N != 3 * pixels_N), "is stored raw with a length that does not match its size"),
        (jpeg_N & (pixels_N > _PIXELS_PER_BYTE * bytes_N), "claims more pixels than its bytes can hold"),
    )
    return [
        Fault(int(i), f"{what} (mode {modes_N[i]}, {sizes_N2[i, 0]} x {sizes_N2[i, 1]} pixels, {bytes_N[i]} bytes)")
        for bad_N, what in kinds
        for i in np.flatnonzero(bad_N)[:_MAX_FAULTS]
    ]
