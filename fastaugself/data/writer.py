"""Writes `.beton` files that appear under their name only when they are whole.

FFCV's own writer decodes and encodes every JPEG again, hangs for ever when a sample raises, and leaves a half-written
file under the final name; this one takes JPEG bytes as they are.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ..errors import RunError, UsageError
from . import sidecar
from .beton import ALLOCATION, FIELD, HEADER, JPEG, MAX_SIDE, RAW, TYPE_IMAGE, TYPE_INT, VERSION, Beton, metadata_type
from .sidecar import Sidecar

_PAGE_SIZE = 1 << 23  # FFCV's default, and its least is 1 << 21
_MAX_PAGE_SIZE = 1 << 31  # page_size is a uint32
_FIELDS = (("image", TYPE_IMAGE), ("label", TYPE_INT))
_NOT_YOURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class BetonWriter:
    """Context manager that writes `out`: `add` each sample, leave the block, and the file is there, checked and synced.

    out: path of the `.beton` file; until the end everything is in `OUT.partial`, which an exception removes. An `out`
    that exists is replaced. capacity: the most samples that will be added; room for their metadata is reserved.
    claimed: what `claim(partial_path(out))` returned, for callers who had to look first; it is closed in the end.
    sidecar: set it before leaving the block to have it written beside the data.

    Raises UsageError where `out` cannot be created or another process is writing it, RunError when the disk fails.
    """

    sidecar: Sidecar | None = None

    def __init__(self, out: str | os.PathLike[str], capacity: int, *, claimed: int | None = None):
        if capacity < 1:
            raise UsageError(f"{os.fspath(out)}: capacity is {capacity}, expected at least one sample")
        self.out, self.capacity = Path(out), capacity
        self._partial = partial_path(self.out)
        self._fd = claim(self._partial) if claimed is None else claimed
        self._metadata = np.zeros(capacity, metadata_type([type_id for _, type_id in _FIELDS]))
        self._allocations = np.zeros(capacity, ALLOCATION)
        self._page_size = _PAGE_SIZE
        self.num_samples = 0
        try:
            with _failing_disk(self.out):
                os.ftruncate(self._fd, 0)
                self._stream = os.fdopen(os.dup(self._fd), "wb", buffering=1 << 20)
                self._position = HEADER.itemsize + len(_FIELDS) * FIELD.itemsize + self._metadata.nbytes
                self._stream.seek(self._position)
        except BaseException:
            release(self._partial, self._fd)
            raise

    def add(self, image: bytes | NDArray[np.uint8], label: int = -1) -> int:
        """Appends a sample and returns its id.

        image: JPEG bytes, stored as they are, or uint8 pixels [H, W, 3], stored raw.
        """
        if self.num_samples == self.capacity:
            raise UsageError(f"{self.out}: more samples than the capacity of {self.capacity}; give a larger one")
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UsageError(
                    f"sample {self.num_samples}: pixels are {image.dtype} {image.shape}, expected uint8 [H, W, 3]"
                )
            mode, (height, width), data = RAW, image.shape[:2], image.tobytes()
        else:
            mode, (height, width), data = JPEG, simplejpeg.decode_jpeg_header(image)[:2], image
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise UsageError(f"sample {self.num_samples}: {height} x {width} pixels, expected sides of 1 to {MAX_SIDE}")
        pointer = self._place(data)
        self._metadata[self.num_samples] = ((mode, width, height, pointer), label)
        self._allocations[self.num_samples] = (self.num_samples, pointer, len(data))
        self.num_samples += 1
        return self.num_samples - 1

    def _place(self, data: bytes) -> int:
        """Writes `data` where it crosses no page boundary, which FFCV needs when it reads by pages (os_cache=False)."""
        # Doubling keeps the promise for what is written already: every boundary of larger pages is one of the smaller.
        while len(data) > self._page_size:
            self._page_size *= 2
        if self._page_size > _MAX_PAGE_SIZE:
            raise UsageError(f"sample {self.num_samples} has {len(data)} bytes, the format holds {_MAX_PAGE_SIZE}")
        room = -self._position % self._page_size
        with _failing_disk(self.out):
            if len(data) > room:
                self._stream.write(bytes(room))
                self._position += room
            self._stream.write(data)
        pointer = self._position
        self._position += len(data)
        return pointer

    def _finish(self) -> None:
        if not self.num_samples:
            raise UsageError(f"{self.out}: no sample was added")
        header, fields = np.zeros(1, HEADER), np.zeros(len(_FIELDS), FIELD)
        header[0] = (VERSION, len(_FIELDS), self._page_size, self.num_samples, self._position)
        for descriptor, (name, type_id) in zip(fields, _FIELDS, strict=True):
            descriptor["type_id"] = type_id
            descriptor["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        with _failing_disk(self.out):
            self._stream.write(self._allocations[: self.num_samples].tobytes())
            self._stream.seek(0)
            self._stream.write(header.tobytes() + fields.tobytes() + self._metadata[: self.num_samples].tobytes())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        with Beton(self._partial) as written:
            if self.sidecar is not None:
                self._write_sidecar(sidecar.dump(self.sidecar, written))
        with _failing_disk(self.out):
            # The data first: a stop in between leaves a sidecar that does not fit, which is noticed and not used.
            os.replace(self._partial, self.out)
            beside = sidecar.path_of(self.out)
            if self.sidecar is not None:
                os.replace(partial_path(beside), beside)
            else:
                beside.unlink(missing_ok=True)
            _sync_folder(self.out.parent)

    def _write_sidecar(self, text: str) -> None:
        with _failing_disk(self.out), partial_path(sidecar.path_of(self.out)).open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    def __enter__(self) -> "BetonWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            if kind is None:
                self._finish()
                finished = True
        finally:
            with contextlib.suppress(OSError):  # a full disk is reported once, by what was written last
                self._stream.close()
            if finished:
                os.close(self._fd)
            else:
                with contextlib.suppress(OSError):
                    partial_path(sidecar.path_of(self.out)).unlink(missing_ok=True)
                release(self._partial, self._fd)


def partial_path(path: Path) -> Path:
    """Where a file is while it is being written."""
    return path.with_name(f"{path.name}.partial")


def claim(partial: Path, *, wait: bool = False) -> int:
    """Opens `partial` for this process alone; a lock that dies with its process, so that a killed writer blocks nobody.

    wait: for another process that has it. Raises UsageError where it may not be written or is in use.
    """
    while True:
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            if error.errno not in _NOT_YOURS:
                raise RunError(f"{partial} cannot be created: {error.strerror}") from error
            raise UsageError(f"{partial} cannot be created: {error.strerror}; choose another place") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(fd)
            raise UsageError(
                f"{partial} is being written by another process: wait for it, or choose another output"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(partial)):
                return fd
        os.close(fd)  # while we waited its owner renamed it, and it is no longer the partial file


def release(partial: Path, fd: int) -> None:
    """Gives a claimed file up and removes it."""
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
    os.close(fd)


@contextlib.contextmanager
def _failing_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} could not be written: {error.strerror or error}; nothing was left behind") from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
