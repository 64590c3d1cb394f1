"""What became of every photo of a collection: `OUT.beton.manifest.jsonl`, one JSON object a line.

    {"format": ..., "options": ...}                                    what it was made from, and how
    {"sample": 0, "name": "cat/1.jpg", "label": 0, "bytes": ..., ...}  one line a photo, in the order of the collection
    {"end": ..., "samples": N, "bytes": ..., ...}                      of the whole file, and of the lines above

It is written while the data are, so that it is also the journal from which a killed run goes on. Training never reads
it: opening data costs the same with and without.

CRC-32 (zlib's) is the checksum: it finds every change of up to four neighbouring bytes for certain and any other but
for one in 4 billion, is faster than disks, and is everywhere. It is no protection against an adversary.
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
    """A line of a photo that was stored.

    sample: its id. name: in its collection. label. bytes, crc32: of what is stored. height, width: pixels. raw: stored
    as pixels and not as JPEG. reencoded: why it is not what the collection has, "" where it is. warning: its decoder's.
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
    """A line of a photo that was left out. name: in its collection. unreadable: why, with its place."""

    name: str
    unreadable: str


class End(NamedTuple):
    """The last line. samples: of the file. bytes: of the file. index_crc32: of all before the images.

    table_crc32: of the allocation table. lines_crc32: of the manifest's lines above this one.
    """

    samples: int
    bytes: int
    index_crc32: int
    table_crc32: int
    lines_crc32: int


@dataclass
class Counts:
    """What is known of a file's photos together, from its entries.

    pixels: of all photos. labels: those that occur. reencoded: number by reason. warnings: name and message.
    unreadable: those left out.
    """

    samples: int = 0
    pixels: int = 0
    labels: set[int] = field(default_factory=set)
    reencoded: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, line: Entry | Unreadable) -> None:
        """Counts a line."""
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
    """Where the manifest of a `.beton` file stands."""
    return Path(f"{os.fspath(beton)}.manifest.jsonl")


def dump(line: Entry | Unreadable | End | dict[str, Any]) -> bytes:
    """A line of the manifest; what has its default value is left out."""
    if isinstance(line, dict):
        content = {"format": FORMAT, **line}
    else:
        usual = line._field_defaults
        content = {key: value for key, value in line._asdict().items() if key not in usual or value != usual[key]}
        if isinstance(line, End):
            content = {"end": FORMAT, **content}
    return json.dumps(content).encode("ascii") + b"\n"


def parse(line: bytes) -> Entry | Unreadable | End | dict[str, Any]:
    """The inverse of `dump`. Raises ValueError for what is no whole line of a manifest."""
    if not line.endswith(b"\n"):
        raise ValueError("it breaks off in the middle of a line")
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
    """The lines of a manifest, first to last.

    number, crc32, position: of the lines read so far, how many, their checksum, and the byte behind them.

    Iterating raises RunError naming the file where a line is damaged.
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
                    raise RunError(f"{self.path} is damaged: its lines are not those that were written")
                self.crc32, self.position = zlib.crc32(line, self.crc32), self.position + len(line)
                yield found


def read_end(beton: str | os.PathLike[str]) -> End | None:
    """The last line of the manifest of a `.beton` file, None where there is no whole manifest."""
    path = path_of(beton)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 4096))
            found = parse(stream.read().splitlines(keepends=True)[-1])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError) as error:
        log.warning("%s is not used: %s", path, error)
        return None
    return found if isinstance(found, End) else None


def source_name(beton: Beton, sample: int) -> str:
    """The name of a sample in the collection that `beton` was written from, "" where no manifest tells.

    Reads the manifest up to that line, without keeping it: 0.3 s for the last of a million.
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
