"""The members of a tar archive that is not trusted.

Nothing is unpacked. Names that point outside the archive, links and devices are refused, and so are headers that claim
more bytes than the file has, before anything is allocated.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import RunError

_MAX_HEADER = 1 << 16  # bytes of an extended header, which holds names and times
_CHUNK = 1 << 20  # bytes read at once in search of the end of the padding


class _Bounded:
    """A file object that limits the size of a read: tarfile would allocate any size that a header claims."""

    def __init__(self, stream: BinaryIO, path: Path):
        self._stream, self._path = stream, path
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, length: int = -1) -> bytes:
        if not 0 <= length <= _MAX_HEADER:
            raise RunError(f"{self._path} claims a header of {length} bytes: such an archive is refused")
        return self._stream.read(length)


def members(path: Path, stream: BinaryIO) -> Iterator[tuple[int, tarfile.TarInfo]]:
    """Yields the regular files, each with the number of its archive: `cat a.tar b.tar` makes a file of two archives.

    Raises RunError for damaged and unsafe archives, and for other bytes after the end of an archive.
    """
    size = os.fstat(stream.fileno()).st_size
    bounded: Any = _Bounded(stream, path)
    number, start, previous = 0, 0, -1
    while number == 0 or start < size:
        stream.seek(start)
        try:
            with tarfile.open(fileobj=bounded, mode="r:") as opened:
                archive: Any = opened
                while (member := archive.next()) is not None:
                    archive.members = []  # otherwise tarfile keeps all members in memory
                    _check(path, size, member)
                    if member.offset_data <= previous:
                        raise RunError(f"{path} is damaged: its headers point backwards, at {member.name!r}")
                    previous = member.offset_data
                    if member.isreg():
                        yield number, member
                end = archive.offset
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise RunError(f"{path} is not a complete tar archive: {error}") from error
        # tarfile treats a damaged header, other than the first, as the end of the archive.
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise RunError(f"{path} is damaged: at byte {end} there is neither a member nor the end of the archive")
        number, start = number + 1, _next_block(stream, end, size)


def _next_block(stream: BinaryIO, start: int, size: int) -> int:
    """The first block from byte `start` on that is not empty; `size` if there is none."""
    stream.seek(start)
    while chunk := stream.read(_CHUNK):
        if found := len(chunk) - len(chunk.lstrip(b"\0")) if chunk.strip(b"\0") else 0:
            return start + found // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        start += len(chunk)
    return size


def _check(path: Path, size: int, member: tarfile.TarInfo) -> None:
    name, why = member.name.replace("\\", "/"), ""
    if name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:", name):
        why = "points outside the archive"
    elif member.issparse() or not (member.isreg() or member.isdir()):
        kinds = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a pipe"}
        kinds |= {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"}
        why = f"is {kinds.get(member.type, 'not a regular file')}"
    elif member.size < 0 or member.offset_data + member.size > size:
        why = f"claims {member.size} bytes at byte {member.offset_data}, but the file has {size}"
    if why:
        raise RunError(f"{path}: member {member.name[:200]!r} {why}; such an archive is refused")
