"""The manifest: a record of every photo of a collection in `OUT.beton.manifest.jsonl`, one JSON object per line.

    {"format": ..., "options": ...}                                    the source and the options of the writer
    {"sample": 0, "name": "cat/1.jpg", "label": 0, "bytes": ..., ...}  one line per photo, in the order of the source
    {"end": ..., "samples": N, "bytes": ..., ...}                      checksums of the whole file and the lines above

It is written along with the data, so it is also the journal from which an interrupted writer resumes. Training does not
read it when opening the data.

The checksum is zlib's CRC-32. It detects every change within four neighbouring bytes, and any other change except with
a probability of one in 4 billion; it is faster than disks. It does not protect against deliberate manipulation.
"""

import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import RunError
from .format import Beton

log = logging.getLogger(__name__)

FORMAT = "fastaugself-manifest-1"
_MAX_LINE = 1 << 20  # bytes


class Entry(NamedTuple):
    """The manifest line of a stored photo.

    sample: sample id. name: name in the source collection. label: class index, -1 without. bytes, crc32: length and
    checksum of the stored data. height, width: pixels. raw: stored as pixels, not as JPEG. reencoded: why the photo was
    re-encoded, "" if its bytes are those of the collection. warning: warning of the decoder, "" if none.
    """

    sample: int
    name: str
    label: int
    bytes: int
    crc32: int
    height: int
    width: int
    raw: bool = False
    reencoded: str = ""
    warning: str = ""


class Unreadable(NamedTuple):
    """The manifest line of a skipped photo. name: name in the collection. unreadable: where it is, and the reason."""

    name: str
    unreadable: str


class End(NamedTuple):
    """The last line of a manifest.

    samples: number of samples in the file. bytes: size of the file. index_crc32, table_crc32, lines_crc32: checksums of
    everything before the image data, of the allocation table, and of the manifest lines above this one.
    """

    samples: int
    bytes: int
    index_crc32: int
    table_crc32: int
    lines_crc32: int


@dataclass
class Counts:
    """Totals over the lines of a manifest.

    samples: stored photos. pixels: total over all photos. labels: labels that occur. reencoded: number of photos per
    reason. warnings: photo names with decoder warnings. unreadable: skipped photos.
    """

    samples: int = 0
    pixels: int = 0
    labels: set[int] = field(default_factory=set)
    reencoded: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, line: Entry | Unreadable) -> None:
        """Adds a line to the totals."""
        if isinstance(line, Unreadable):
            self.unreadable.append(line)
            return
        self.samples += 1
        self.pixels += line.height * line.width
        if line.label >= 0:
            self.labels.add(line.label)
        if line.reencoded:
            self.reencoded[line.reencoded] += 1
        if line.warning:
            self.warnings.append(f"{line.name}: {line.warning}")


def path_of(beton: str | os.PathLike[str]) -> Path:
    """Path of the manifest of a `.beton` file."""
    return Path(f"{os.fspath(beton)}.manifest.jsonl")


def dump(line: Entry | Unreadable | End | dict[str, Any]) -> bytes:
    """Serialises a line of the manifest; fields with their default value are omitted."""
    if isinstance(line, dict):
        content = {"format": FORMAT, **line}
    else:
        defaults = line._field_defaults
        content = {key: value for key, value in line._asdict().items() if (key, value) not in defaults.items()}
        if isinstance(line, End):
            content = {"end": FORMAT, **content}
    return json.dumps(content).encode("ascii") + b"\n"


def parse(line: bytes) -> Entry | Unreadable | End | dict[str, Any]:
    """The inverse of `dump`. Raises ValueError if `line` is not a complete line of a manifest."""
    if not line.endswith(b"\n"):
        raise ValueError("it ends in the middle of a line")
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError(f"not a line of a manifest: {line[:40]!r}")
    try:
        if content.pop("end", None) == FORMAT:
            return _typed(End, content)
        if "sample" in content:
            return _typed(Entry, content)
        if "unreadable" in content:
            return _typed(Unreadable, content)
    except TypeError as error:
        raise ValueError(f"not a line of a manifest: {error}") from error
    if content.pop("format", None) != FORMAT:
        raise ValueError(f"not a line of {FORMAT}: {line[:40]!r}")
    return content


def _typed(kind: Any, content: dict[str, Any]) -> Any:
    line = kind(**content)
    for name, expected in kind.__annotations__.items():
        value = getattr(line, name)
        if type(value) is not expected or (expected is int and name != "label" and value < 0):
            raise TypeError(f"{name} is {value!r}")
    return line


class Lines:
    """Iterates over the lines of a manifest.

    Attributes. number: number of lines read so far. crc32: their checksum. position: byte offset of their end.

    Iterating raises RunError for a damaged line.
    """

    def __init__(self, path: Path):
        self.path, self.number, self.crc32, self.position = path, 0, 0, 0

    def __iter__(self) -> Iterator[Entry | Unreadable | End | dict[str, Any]]:
        with self.path.open("rb") as stream:
            while line := stream.readline(_MAX_LINE):
                self.number += 1
                try:
                    found = parse(line)
                except ValueError as error:
                    raise RunError(f"{self.path} is damaged in line {self.number}: {error}") from None
                if isinstance(found, End) and (found.lines_crc32 != self.crc32 or stream.read(1)):
                    raise RunError(f"{self.path} is damaged: the checksum of its lines does not match")
                self.crc32, self.position = zlib.crc32(line, self.crc32), self.position + len(line)
                yield found


def begun(path: Path) -> dict[str, Any] | None:
    """The first line of the manifest of an interrupted writer: source and options; None if there is none."""
    try:
        with path.open("rb") as stream:
            found = parse(stream.readline(_MAX_LINE))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_end(beton: str | os.PathLike[str]) -> End | None:
    """The last line of the manifest of a `.beton` file, None if there is no complete manifest."""
    path = path_of(beton)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 4096))
            found = parse(stream.read().splitlines(keepends=True)[-1])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError) as error:
        log.warning("%s is ignored: %s", path, error)
        return None
    return found if isinstance(found, End) else None


def source_name(beton: Beton, sample: int) -> str:
    """The name of a sample in the collection that `beton` was written from, "" without a matching manifest.

    Scans the manifest up to that line, in constant memory: 0.3 s for the last of a million lines.
    """
    end = read_end(beton.path)
    if end is None or end.index_crc32 != beton.index_crc32:
        return ""
    start = b'{"sample": %d,' % sample
    try:
        with path_of(beton.path).open("rb") as stream:
            for line in stream:
                if line.startswith(start):
                    found = parse(line)
                    return found.name if isinstance(found, Entry) else ""
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", path_of(beton.path), error)
    return ""
