"""WebDataset: tar archives in which files with the same base name form a sample, such as `0001.jpg` and `0001.cls`."""

import json
import logging
import os
import re
import tarfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import RunError, UsageError
from .archive import members
from .patterns import find_files, identity
from .samples import Columns, Sample, Samples, fingerprint, number_classes, read_file

log = logging.getLogger(__name__)

IMAGES = ("jpg", "jpeg", "png", "webp")
_LABEL_KEYS = ("label", "cls", "class")  # keys of a .json, unless the user names one
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
            for member in members(shard, stream):
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
