"""WebDataset: tar archives in which files with the same base name form a sample, such as `0001.jpg` and `0001.cls`."""

import json
import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ...errors import RunError, UsageError
from .archive import members
from .join import Joined, Label, Photo
from .patterns import find_files, identity
from .samples import Columns, Sample, Samples, fingerprint, number_classes, read_file
from .walk import EXTENSIONS

log = logging.getLogger(__name__)

_LABEL_KEYS = ("label", "cls", "class")  # keys of a .json, unless the user names one
_MAX_LABEL = 1 << 20  # bytes of a .cls or .json
_NAME = re.compile(r"((?:.*/|)[^./][^/]*)\.([^/.]*)")  # of a file that is not hidden, and its extension


class ShardSamples(Samples):
    """The photos of WebDataset shards, in the order of the shards and of their members."""

    def __init__(self, source: str, shards: list[Path], columns: Columns):
        self.source, self._shards = source, shards
        self._identity = identity(shards)
        joined, others = Joined(shards), Counter[str]()
        for number, shard in enumerate(shards):
            _read_names(joined, number, shard, columns, others)
        joined.finish()
        self._photos = joined.photos
        if not self._photos:
            raise UsageError(
                f"{source} holds no photos: expected members such as 0001.jpg, .png, .webp or .tif{_kinds(others)}"
            )
        self._labels, self.classes = number_classes(joined.labels, source)
        self.count, self.ignored = len(self._photos), others.total() + len(joined.extra)
        names = [(photo.shard, photo.member) for photo in self._photos]
        self.fingerprint = fingerprint([*self._identity, columns.label, names, joined.labels])
        if others:
            log.info("%s: %d members are neither photos nor labels%s", source, others.total(), _kinds(others))
        if joined.extra:
            log.warning(
                "%s: left out %d images that belong to another photo, such as %s: rename those that are photos of "
                "their own",
                source,
                len(joined.extra),
                joined.extra[0].member,
            )
        if unused := [label.place for label in joined.unused if label.value is not None]:
            log.warning("%s: %d labels have no photo of their name, such as %s", source, len(unused), unused[0])

    def samples(self, start: int = 0) -> Generator[Sample]:
        for photo, label in zip(self._photos[start:], self._labels[start:], strict=True):
            shard, (name, size, _) = self._shards[photo.shard], self._identity[photo.shard]
            read = partial(read_file, shard, size, start=photo.start, length=photo.size)
            yield Sample(f"{name}:{photo.member}", label, f"{shard}: {photo.member}", read)


def _read_names(joined: Joined, number: int, shard: Path, columns: Columns, others: Counter[str]) -> None:
    """Adds the photos and labels of one shard to `joined`, and counts its other members by extension in `others`."""
    part = 0
    with shard.open("rb") as stream:
        for archive, member in members(shard, stream):
            if archive != part:
                joined.end_archive()
                part = archive
            named = _NAME.fullmatch(member.name)
            kind = named[2].lower() if named else ""
            if named and f".{kind}" in EXTENSIONS:
                joined.add(Photo(number, part, member.name, named[1], member.offset_data, member.size))
            elif named and kind in ("cls", "json"):
                if columns.label != "none":
                    joined.add(_label(shard, member, stream, columns.label, named[1]))
            else:
                others[f".{kind}" if kind else "hidden or without an extension"] += 1
    joined.end_archive()


def _kinds(others: Counter[str]) -> str:
    """The most common extensions of members that are not photos, for messages."""
    found = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
    return f"; it has {found}{', ...' if len(others) > 5 else ''}" if found else ""


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


def _label(shard: Path, member: tarfile.TarInfo, stream: BinaryIO, key: str, stem: str) -> Label:
    """The label in a .cls or .json member. The kind that the user named a key of comes first, else .cls."""
    place, is_json = f"{shard}: {member.name}", member.name.lower().endswith(".json")
    value: int | str | UsageError | RunError | None
    try:
        value = _read_label(place, member, stream, key if is_json else None)
    except (UsageError, RunError) as error:
        value = error
    return Label(place, stem, int(is_json != bool(key)), value)


def _read_label(place: str, member: tarfile.TarInfo, stream: BinaryIO, key: str | None) -> int | str | None:
    """A number, a name, or None. key: of a .json, None for a .cls."""
    if member.size > _MAX_LABEL:
        raise RunError(f"{place} has {member.size} bytes, expected a label of at most {_MAX_LABEL}")
    data = os.pread(stream.fileno(), member.size, member.offset_data)
    try:
        text = data.decode("utf-8-sig").strip()
        if key is None:
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
