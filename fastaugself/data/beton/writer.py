"""Writes `.beton` files that appear under their name only when they are whole.

FFCV's own writer decodes and encodes every JPEG again, hangs for ever when a sample raises, and leaves a half-written
file under the final name; this one takes JPEG bytes as they are.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ...errors import RunError, UsageError
from . import manifest, sidecar
from .format import ALLOCATION, FIELD, HEADER, JPEG, MAX_SIDE, RAW, TYPE_IMAGE, TYPE_INT, VERSION, Beton, metadata_type
from .manifest import Counts, End, Entry, Unreadable
from .sidecar import Sidecar
from .verify import verify_beton

log = logging.getLogger(__name__)

_PAGE_SIZE = 1 << 23  # FFCV's default, and its least is 1 << 21
_MAX_PAGE_SIZE = 1 << 31  # page_size is a uint32
_LINES = 1 << 14  # bytes of the manifest's lines that are buffered: about 100 photos, which a killed writer loses
_ROOM = 4 << 20  # bytes given up for the lines of the manifest on a full disk
_FIELDS = (("image", TYPE_IMAGE), ("label", TYPE_INT))
_NOT_YOURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class BetonWriter:
    """Context manager that writes `out`: `add` each sample, leave the block, and the file is there, checked and synced.

    out: path of the `.beton` file; until the end everything is in `OUT.partial`. An `out` that exists is replaced.
    capacity: the most samples that will be added; room for their metadata is reserved. claimed: what
    `claim(partial_path(out))` returned, for callers who had to look first; it is closed in the end.
    made_from: names the samples that will be added, and how they are made. Without it an exception removes what was
    written. With it that is kept, and the next writer with an equal `made_from` goes on from there: it must add what
    follows those that `counts` has already, for the same bytes in the end.
    sidecar: set it before leaving the block to have it written beside the data. counts: of the samples so far.

    Raises UsageError where `out` cannot be created or another process is writing it, RunError when the disk fails.
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
        """Takes over what an earlier writer left, as far as it is whole; returns where its lines end."""
        lines, end = manifest.Lines(self._lines_path), 0
        try:
            for line in lines:
                if isinstance(line, dict):
                    if manifest.dump(line) != header:
                        log.warning("%s was begun from other data or with other options: starting again", self._partial)
                        return 0
                elif isinstance(line, End) or not self._take(line):
                    break
                end, self._lines_crc32 = lines.position, lines.crc32
        except FileNotFoundError:
            return 0
        except RunError:  # the line at which the earlier writer was stopped
            pass
        return end if self.counts.samples or self.counts.unreadable else 0

    def _take(self, line: Entry | Unreadable) -> bool:
        """Counts a sample of an earlier writer, if its data are there."""
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

        image: JPEG bytes, stored as they are, or uint8 pixels [H, W, 3], stored raw. name, reencoded, warning: what the
        manifest says of it, see manifest.Entry.
        """
        sample = self.counts.samples
        if sample == self.capacity:
            raise UsageError(f"{self.out}: more samples than the capacity of {self.capacity}; give a larger one")
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
        """Notes a sample that cannot be read, in its place among the others."""
        self._count(Unreadable(name, reason))

    def _count(self, line: Entry | Unreadable) -> None:
        self.counts.add(line)
        with self._failing_disk():
            self._write_line(manifest.dump(line))

    def _write_line(self, line: bytes) -> None:
        self._lines.write(line)
        self._lines_crc32 = zlib.crc32(line, self._lines_crc32)

    def _place(self, length: int) -> tuple[int, int]:
        """Where data of this length go so that they cross no page boundary, and the size of a page.

        FFCV needs that when it reads by pages (os_cache=False).
        """
        page_size = self._page_size
        # Doubling keeps the promise for what is written already: every boundary of larger pages is one of the smaller.
        while length > page_size:
            page_size *= 2
        if page_size > _MAX_PAGE_SIZE:
            raise UsageError(f"sample {self.counts.samples} has {length} bytes, the format holds {_MAX_PAGE_SIZE}")
        room = -self._position % page_size
        return self._position + (room if length > room else 0), page_size

    def _record(self, line: Entry) -> None:
        """Puts a sample that stands at the present position into the index, and moves on behind it."""
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
            _sync(self._stream)
            self._lines.write(manifest.dump(end))
            _sync(self._lines)
        self._check()
        self._publish()

    def _check(self) -> None:
        """Reads everything back before it gets its name."""
        faults = verify_beton(self._partial, manifest_path=self._lines_path).faults
        if faults:
            raise RunError(
                f"{self.out} is not on the disk as it was written: {faults[0]}; is the disk or the memory failing?"
            )

    def _publish(self) -> None:
        """Gives everything its name, the data last: before that, a killed writer can still go on from here."""
        described, lines = sidecar.path_of(self.out), manifest.path_of(self.out)
        with self._failing_disk():
            if self.sidecar is not None:
                with Beton(self._partial) as written:
                    text = sidecar.dump(self.sidecar, written)
                with partial_path(described).open("w", encoding="utf-8") as stream:
                    stream.write(text)
                    _sync(stream)
                os.replace(partial_path(described), described)
            else:
                described.unlink(missing_ok=True)
            lines.unlink(missing_ok=True)
            try:
                os.link(self._lines_path, lines)
            except OSError:  # a file system without hard links
                shutil.copyfile(self._lines_path, lines)
            os.replace(self._partial, self.out)
            self._lines_path.unlink(missing_ok=True)
            _sync_folder(self.out.parent)

    @contextlib.contextmanager
    def _failing_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = f"what was written stays in {self._partial}" if self._keeps() else "nothing was left behind"
            raise RunError(f"{self.out} could not be written: {error.strerror or error}; {kept}") from error

    def _keeps(self) -> bool:
        return self._made_from is not None and self.counts.samples > 0

    def _make_room_for_lines(self) -> None:
        """On a full disk the last of the data give way to the lines, without which none of the data could be used."""
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
                with contextlib.suppress(OSError):  # a full disk is reported once, by what was written last
                    stream.close()
            if finished or self._keeps():
                os.close(self._fd)
            else:
                for beside in (partial_path(sidecar.path_of(self.out)), self._lines_path):
                    with contextlib.suppress(OSError):
                        beside.unlink(missing_ok=True)
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
            remedy = "choose another place" if partial.parent.is_dir() else f"make the folder {partial.parent} first"
            raise UsageError(f"{partial} cannot be created: {error.strerror}; {remedy}") from None
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


def _sync(stream: IO[Any]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
