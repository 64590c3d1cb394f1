"""WebDataset: tar archives in which files with the same base name form a sample, such as `0001.jpg` and `0001.cls`.

Archives are not trusted. Nothing is unpacked. Names that point outside the archive, links and devices are refused, and
so are headers that claim more bytes than the file has, before anything is allocated.
"""

import json
import logging
import os
import re
import tarfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...errors import RunError, UsageError
from .patterns import find_files, identity
from .samples import Columns, Sample, Samples, fingerprint, number_classes, read_file

log = logging.getLogger(__name__)

IMAGES = ("jpg", "jpeg", "png", "webp")
_LABEL_KEYS = ("label", "cls", "class")  # keys of a .json, unless the user names one
_MAX_HEADER = 1 << 16  # bytes of an extended header, which holds names and times
_MAX_LABEL = 1 << 20  # bytes of a .cls or .json
_NAME = re.compile(r"((?:.*/|)[^./][^/.]*)\.([^/]*)")  # WebDataset's key: the name up to its first dot


class _Photo(NamedTuple):
    """Location of a photo: shard number, member name, byte offset and size."""

    shard: int
    member: str
    start: int
    size: int


class ShardSamples(Samples):
    """The photos of WebDataset shards, in the order of the shards and of their members."""

    def __init__(self, source: str, shards: list[Path], columns: Columns):
        self.source, self._shards = source, shards
        self._identity = identity(shards)
        self._photos: list[_Photo] = []
        labels: list[int | str | None] = []
        for number, shard in enumerate(shards):
            for photo, label in self._samples_of(number, shard, columns):
                self._photos.append(photo)
                labels.append(label)
        if not self._photos:
            raise UsageError(f"{source} holds no photos: expected members such as 0001.jpg, .jpeg, .png or .webp")
        self._labels, self.classes = number_classes(labels, source)
        self.count = len(self._photos)
        self.fingerprint = fingerprint([*self._identity, columns.label])

    def samples(self, start: int = 0) -> Generator[Sample]:
        for photo, label in zip(self._photos[start:], self._labels[start:], strict=True):
            shard, (name, size, _) = self._shards[photo.shard], self._identity[photo.shard]
            read = partial(read_file, shard, size, start=photo.start, length=photo.size)
            yield Sample(f"{name}:{photo.member}", label, f"{shard}: {photo.member}", read)

    def _samples_of(self, number: int, shard: Path, columns: Columns) -> Iterator[tuple[_Photo, int | str | None]]:
        """Yields the photos of one shard with their labels; adjacent members with the same key form one sample."""
        key, photo, label = "", None, None
        with shard.open("rb") as stream:
            for member in _members(shard, stream):
                named = _NAME.fullmatch(member.name)
                if named is None:
                    self.ignored += 1
                    continue
                if named[1] != key:
                    if photo is not None:
                        yield photo, label
                    key, photo, label = named[1], None, None
                kind = named[2].lower()
                if kind in IMAGES:
                    if photo is not None:
                        raise UsageError(
                            f"{shard}: {photo.member} and {member.name} are two photos of one sample: expected one"
                        )
                    photo = _Photo(number, member.name, member.offset_data, member.size)
                elif kind in ("cls", "json") and columns.label != "none":
                    found = _label(shard, member, stream, columns.label)
                    label = found if found is not None else label
                elif kind not in ("cls", "json"):
                    self.ignored += 1
        if photo is not None:
            yield photo, label


def open_shards(source: str, columns: Columns) -> Samples | None:
    """Opens WebDataset shards: a .tar file, a pattern that ends in .tar, or a folder with .tar files."""
    compressed = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
    if source.lower().endswith(compressed):
        raise UsageError(
            f"{source} is compressed, so its members cannot be read in any order (and photos gain nothing from it): "
            f"decompress it to a .tar first"
        )
    shards = find_files(source, (".tar",))
    return None if shards is None else ShardSamples(source, shards, columns)


class _Bounded:
    """A file object that limits the size of a read: tarfile would allocate any size that a header claims."""

    def __init__(self, stream: BinaryIO, path: Path):
        self._stream, self._path = stream, path
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, length: int = -1) -> bytes:
        if not 0 <= length <= _MAX_HEADER:
            raise RunError(f"{self._path} claims a header of {length} bytes: such an archive is refused")
        return self._stream.read(length)


def _members(path: Path, stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the regular files of an archive. Raises RunError for damaged and unsafe archives."""
    size = os.fstat(stream.fileno()).st_size
    bounded: Any = _Bounded(stream, path)
    previous = -1
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
                    yield member
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise RunError(f"{path} is not a complete tar archive: {error}") from error
    # tarfile treats a damaged header, other than the first, as the end of the archive.
    stream.seek(end)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise RunError(f"{path} is damaged: at byte {end} there is neither a member nor the end of the archive")


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


def _label(shard: Path, member: tarfile.TarInfo, stream: BinaryIO, key: str) -> int | str | None:
    """The label in a .cls or .json member: a number, a name, or None."""
    place = f"{shard}: {member.name}"
    if member.size > _MAX_LABEL:
        raise RunError(f"{place} has {member.size} bytes, expected a label of at most {_MAX_LABEL}")
    data = os.pread(stream.fileno(), member.size, member.offset_data)
    try:
        text = data.decode("utf-8").strip()
        if member.name.lower().endswith(".cls"):
            return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text or None
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{place} is not a label: {error}") from error
    if isinstance(found, dict):
        if key and key not in found:
            raise UsageError(f"{place} has no {key!r}, only {', '.join(map(repr, found))}: pass another --label-column")
        found = found[key] if key else next((found[k] for k in _LABEL_KEYS if k in found), None)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | str)):
        raise UsageError(f"{place}: the label is {str(found)[:80]!r}, expected a whole number or a name")
    return found
