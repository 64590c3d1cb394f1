"""Atomic writer of `.beton` files: a file appears under its final name only when it is complete.

FFCV's own writer re-encodes every JPEG, hangs forever when a sample raises, and leaves a partial file under the final
name. This one stores JPEG bytes unchanged.
"""

import contextlib
import errno
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ...errors import RunError, UsageError
from ...files import lock, sync, sync_folder
from . import manifest, sidecar
from .format import ALLOCATION, FIELD, HEADER, JPEG, MAX_SIDE, RAW, TYPE_IMAGE, TYPE_INT, VERSION, Beton, metadata_type
from .manifest import Counts, End, Entry, Unreadable
from .sidecar import Sidecar
from .verify import verify_beton

log = logging.getLogger(__name__)

_PAGE_SIZE = 1 << 23  # FFCV's default; its minimum is 1 << 21
_MAX_PAGE_SIZE = 1 << 31  # page_size is a uint32
_LINES = 1 << 14  # buffer of the manifest in bytes: about 100 photos, which are lost if the writer is killed
_ROOM = 4 << 20  # bytes of image data discarded on a full disk to make room for the manifest
_FIELDS = (("image", TYPE_IMAGE), ("label", TYPE_INT))
_USER_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class BetonWriter:
    """Context manager that writes `out`: `add` the samples; leaving the block verifies, syncs and renames the file.

    out: path of the `.beton` file; until the end, data go to `OUT.partial`. An existing `out` is replaced.
    capacity: maximum number of samples; space for their metadata is reserved. claimed: file descriptor from
    `claim(partial_path(out))`, if the caller has claimed the file already; the writer closes it.
    made_from: identifies the source of the samples and the options. Without it, an exception removes what was written.
    With it, the partial file is kept, and the next writer with an equal `made_from` resumes: the caller must add the
    samples that follow those in `counts`. The resulting file is the same, byte for byte.

    Attributes. sidecar: set it inside the block to have a sidecar written. counts: totals of the samples so far.

    Raises UsageError if `out` cannot be created or is being written by another process, RunError if the disk fails.
    """

    sidecar: Sidecar | None = None

    def __init__(
        self,
        out: str | os.PathLike[str],
        capacity: int,
        *,
        claimed: int | None = None,
        made_from: dict[str, Any] | None = None,
    ):
        if capacity < 1:
            raise UsageError(f"{os.fspath(out)}: capacity is {capacity}, expected at least one sample")
        self.out, self.capacity = Path(out), capacity
        self._made_from = made_from
        self._partial = partial_path(self.out)
        self._lines_path = partial_path(manifest.path_of(self.out))
        self._fd = claim(self._partial) if claimed is None else claimed
        self._metadata = np.zeros(capacity, metadata_type([type_id for _, type_id in _FIELDS]))
        self._allocations = np.zeros(capacity, ALLOCATION)
        self._page_size = _PAGE_SIZE
        self._position = HEADER.itemsize + len(_FIELDS) * FIELD.itemsize + self._metadata.nbytes
        self._lines_crc32 = 0
        self.counts = Counts()
        try:
            with self._failing_disk():
                self._open()
        except BaseException:
            release(self._partial, self._fd)
            raise

    def _open(self) -> None:
        header = manifest.dump(self._made_from or {})
        end = self._recover(header) if self._made_from is not None else 0
        os.ftruncate(self._fd, self._position if end else 0)
        self._stream = os.fdopen(os.dup(self._fd), "wb", buffering=1 << 20)
        self._stream.seek(self._position)
        self._lines = self._lines_path.open("r+b" if end else "wb", buffering=_LINES)
        self._lines.truncate(end)
        self._lines.seek(end)
        if not end:
            self._lines_crc32 = 0
            self._write_line(header)

    def _recover(self, header: bytes) -> int:
        """Recovers the intact samples of an interrupted writer; returns the end of their lines in the manifest."""
        lines, end = manifest.Lines(self._lines_path), 0
        try:
            for line in lines:
                if isinstance(line, dict):
                    if manifest.dump(line) != header:
                        log.warning(
                            "%s was written from other data or with other options: starting over",
                            self._partial,
                        )
                        return 0
                elif isinstance(line, End) or not self._recover_sample(line):
                    break
                end, self._lines_crc32 = lines.position, lines.crc32
        except FileNotFoundError:
            return 0
        except RunError:  # the line at which the earlier writer was interrupted
            pass
        return end if self.counts.samples or self.counts.unreadable else 0

    def _recover_sample(self, line: Entry | Unreadable) -> bool:
        """Adds a sample of an interrupted writer to the index if its data are intact; returns whether they are."""
        if isinstance(line, Entry):
            position, page_size = self._place(line.bytes)
            data = os.pread(self._fd, line.bytes, position)
            if len(data) != line.bytes or zlib.crc32(data) != line.crc32 or self.counts.samples == self.capacity:
                return False
            self._position, self._page_size = position, page_size
            self._record(line)
        self.counts.add(line)
        return True

    def add(
        self,
        image: bytes | NDArray[np.uint8],
        label: int = -1,
        *,
        name: str = "",
        reencoded: str = "",
        warning: str = "",
    ) -> int:
        """Appends a sample and returns its id.

        image: JPEG bytes, stored unchanged, or uint8 pixels [H, W, 3], stored raw. label: class index, -1 without.
        name, reencoded, warning: fields of the manifest, see manifest.Entry. Raises UsageError for more samples than
        the capacity and for pixels of the wrong dtype or shape.
        """
        sample = self.counts.samples
        if sample == self.capacity:
            raise UsageError(f"{self.out}: more samples than the capacity of {self.capacity}; pass a larger capacity")
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UsageError(f"sample {sample}: pixels are {image.dtype} {image.shape}, expected uint8 [H, W, 3]")
            raw, (height, width), data = True, image.shape[:2], image.tobytes()
        else:
            raw, (height, width), data = False, simplejpeg.decode_jpeg_header(image)[:2], image
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise UsageError(f"sample {sample}: {height} x {width} pixels, expected sides of 1 to {MAX_SIDE}")
        position, self._page_size = self._place(len(data))
        with self._failing_disk():
            self._stream.write(bytes(position - self._position))
            self._stream.write(data)
        self._position = position
        crc32 = zlib.crc32(data)
        line = Entry(sample, name, label, len(data), crc32, height, width, raw, reencoded, warning)
        self._record(line)
        self._count(line)
        return sample

    def leave_out(self, name: str, reason: str) -> None:
        """Records a skipped photo in the manifest: its name in the collection, and the reason."""
        self._count(Unreadable(name, reason))

    def _count(self, line: Entry | Unreadable) -> None:
        self.counts.add(line)
        with self._failing_disk():
            self._write_line(manifest.dump(line))

    def _write_line(self, line: bytes) -> None:
        self._lines.write(line)
        self._lines_crc32 = zlib.crc32(line, self._lines_crc32)

    def _place(self, length: int) -> tuple[int, int]:
        """(position, page size) at which data of this length do not cross a page boundary.

        FFCV requires this when it reads by pages (os_cache=False).
        """
        page_size = self._page_size
        # Doubling keeps earlier samples within a page: every boundary of larger pages is also one of smaller pages.
        while length > page_size:
            page_size *= 2
        if page_size > _MAX_PAGE_SIZE:
            raise UsageError(f"sample {self.counts.samples} has {length} bytes, the format allows {_MAX_PAGE_SIZE}")
        room = -self._position % page_size
        return self._position + (room if length > room else 0), page_size

    def _record(self, line: Entry) -> None:
        """Adds a sample at the current position to the index, and advances the position to its end."""
        mode = RAW if line.raw else JPEG
        self._metadata[line.sample] = ((mode, line.width, line.height, self._position), line.label)
        self._allocations[line.sample] = (line.sample, self._position, line.bytes)
        self._position += line.bytes

    def _finish(self) -> None:
        samples = self.counts.samples
        if not samples:
            raise UsageError(f"{self.out}: no sample was added")
        header, fields = np.zeros(1, HEADER), np.zeros(len(_FIELDS), FIELD)
        header[0] = (VERSION, len(_FIELDS), self._page_size, samples, self._position)
        for descriptor, (name, type_id) in zip(fields, _FIELDS, strict=True):
            descriptor["type_id"] = type_id
            descriptor["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        index = header.tobytes() + fields.tobytes() + self._metadata[:samples].tobytes()
        table = self._allocations[:samples].tobytes()
        end = End(samples, self._position + len(table), zlib.crc32(index), zlib.crc32(table), self._lines_crc32)
        with self._failing_disk():
            self._stream.write(table)
            self._stream.seek(0)
            self._stream.write(index)
            sync(self._stream)
            self._lines.write(manifest.dump(end))
            sync(self._lines)
        self._check()
        self._publish()

    def _check(self) -> None:
        """Reads the file back and verifies it before it is renamed."""
        faults = verify_beton(self._partial, manifest_path=self._lines_path).faults
        if faults:
            raise RunError(
                f"{self.out} differs on disk from what was written: {faults[0]}; is the disk or the memory failing?"
            )

    def _publish(self) -> None:
        """Renames the files to their final names, the data last: a writer that is killed before that can resume."""
        sidecar_path, lines = sidecar.path_of(self.out), manifest.path_of(self.out)
        with self._failing_disk():
            if self.sidecar is not None:
                with Beton(self._partial) as written:
                    text = sidecar.dump(self.sidecar, written)
                with partial_path(sidecar_path).open("w", encoding="utf-8") as stream:
                    stream.write(text)
                    sync(stream)
                os.replace(partial_path(sidecar_path), sidecar_path)
            else:
                sidecar_path.unlink(missing_ok=True)
            lines.unlink(missing_ok=True)
            try:
                os.link(self._lines_path, lines)
            except OSError:  # a file system without hard links
                shutil.copyfile(self._lines_path, lines)
            os.replace(self._partial, self.out)
            self._lines_path.unlink(missing_ok=True)
            sync_folder(self.out.parent)

    @contextlib.contextmanager
    def _failing_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = f"the photos so far are kept in {self._partial}" if self._keeps() else "no files were left behind"
            raise RunError(f"{self.out} could not be written: {error.strerror or error}; {kept}") from error

    def _keeps(self) -> bool:
        return self._made_from is not None and self.counts.samples > 0

    def _make_room_for_lines(self) -> None:
        """On a full disk, truncates the image data to make room for the manifest, without which they are useless."""
        with contextlib.suppress(OSError):
            self._stream.flush()
        try:
            self._lines.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, max(0, os.fstat(self._fd).st_size - _ROOM))
                self._lines.flush()

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
            if not finished and self._keeps():
                self._make_room_for_lines()
            for stream in (self._stream, self._lines):
                with contextlib.suppress(OSError):  # a full disk has been reported by the failed write
                    stream.close()
            if finished or self._keeps():
                os.close(self._fd)
            else:
                for path in (partial_path(sidecar.path_of(self.out)), self._lines_path):
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
                release(self._partial, self._fd)


def partial_path(path: Path) -> Path:
    """Path of a file while it is being written."""
    return path.with_name(f"{path.name}.partial")


def claim(partial: Path, *, wait: bool = False) -> int:
    """Opens and locks `partial` for this process; returns the file descriptor.

    The lock ends with the process, so a killed writer does not block others; a file system without locks is used
    without. wait: wait for another process that holds the lock. Raises UsageError if the file cannot be created by this
    user or is in use, RunError if the disk fails.
    """
    while True:
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            if error.errno not in _USER_ERRORS:
                raise RunError(f"{partial} cannot be created: {error.strerror}") from error
            remedy = "choose another folder" if partial.parent.is_dir() else f"create the folder {partial.parent} first"
            raise UsageError(f"{partial} cannot be created: {error.strerror}; {remedy}") from None
        try:
            locked = lock(fd, partial, wait=wait)
        except BlockingIOError:
            os.close(fd)
            raise UsageError(
                f"{partial} is being written by another process: wait until it ends, or choose another output"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        if not locked:  # nobody can have held the file; inodes may not be comparable on such file systems
            return fd
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(partial)):
                return fd
        os.close(fd)  # its owner renamed the file while we waited, so that it is no longer the partial file


def release(partial: Path, fd: int) -> None:
    """Removes a claimed file and releases its lock."""
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
    os.close(fd)
