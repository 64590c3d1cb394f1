"""The sidecar `OUT.beton.json`: class names, source, options, and additional per-sample values of a `.beton` file.

The file has one top-level key per line, and the per-sample columns come last: the head of a sidecar with a million
samples can be read without parsing them. The records of the single photos are in the manifest (manifest.py).
"""

import json
import logging
import os
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .format import FIELD, HEADER, TYPE_IMAGE, TYPE_INT, Beton, metadata_type

log = logging.getLogger(__name__)

FORMAT = "fastaugself-sidecar-2"
_PER_SAMPLE = "columns"


@dataclass(frozen=True)
class Sidecar:
    """Content of a sidecar.

    classes: class names, indexed by label; empty without labels. source: path of the collection, as it was passed.
    options: options of the writer (max_side, quality). fingerprint: hash of the names, sizes and times in the source,
    "" if none. counts: samples, passed_through, reencoded (number per reason), unreadable, and total pixels.
    beton: size in bytes and index_crc32 of the `.beton` file, filled in by the writer. made_for: the folder of photos
    that training wrote the file for, as an absolute path; "" if it was written on request, so it must not be replaced.
    columns: additional per-sample values by column name.
    """

    classes: list[str] = field(default_factory=list)
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    beton: dict[str, int] = field(default_factory=dict)
    made_for: str = ""
    columns: dict[str, list[float]] = field(default_factory=dict)


def path_of(beton: str | os.PathLike[str]) -> Path:
    """Path of the sidecar of a `.beton` file."""
    return Path(f"{os.fspath(beton)}.json")


def dump(sidecar: Sidecar, beton: Beton) -> str:
    """Serialises the sidecar, with the size and checksum of `beton`."""
    identity = {"bytes": beton.path.stat().st_size, "index_crc32": beton.index_crc32}
    content = {"format": FORMAT, **asdict(replace(sidecar, beton=identity))}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(beton: Beton, *, columns: bool = True) -> Sidecar | None:
    """The sidecar of `beton`, None if there is no matching one.

    columns: whether to read the per-sample columns. A sidecar of other data (the `.beton` file was replaced, or a
    writer was killed between its two renames) is reported in the log and ignored.
    """
    path = path_of(beton.path)
    sidecar = _parse(path, columns=columns)
    if sidecar is None:
        return None
    if sidecar.beton.get("index_crc32") != beton.index_crc32:
        log.warning("%s is ignored: it was written for other data than %s", path, beton.path)
        return None
    return sidecar


def made_for(beton: Path) -> str:
    """The folder that training wrote `beton` for, "" for a file that is not known to be training's.

    The file may be damaged behind its index, but has the index for which the sidecar was written.
    """
    sidecar = _parse(path_of(beton), columns=False)
    if sidecar is None or not sidecar.made_for:
        return ""
    kinds = {"image": TYPE_IMAGE, "label": TYPE_INT}
    try:
        record = metadata_type(list(kinds.values()))
        index = HEADER.itemsize + len(kinds) * FIELD.itemsize + int(sidecar.counts["samples"]) * record.itemsize
        with beton.open("rb") as stream:
            same = zlib.crc32(stream.read(index)) == sidecar.beton["index_crc32"]
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    return sidecar.made_for if same else ""


def _parse(path: Path, *, columns: bool) -> Sidecar | None:
    """The sidecar in a file; None, with a warning unless the file is missing, if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8") if columns else _head(path))
        found = content.pop("format")
        if found != FORMAT:
            log.warning("%s is ignored: format %s, expected %s", path, found, FORMAT)
            return None
        return Sidecar(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is ignored: %s; write the data again to have class names", path, error)
        return None


def _head(path: Path) -> str:
    """The JSON document without its per-sample columns."""
    lines: list[str] = []
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(f'"{_PER_SAMPLE}":'):
                return "".join(lines).rstrip().rstrip(",") + "\n}"
            lines.append(line)
    return "".join(lines)


def difference(classes_a: list[str], classes_b: list[str]) -> str:
    """How two lists of class names differ, for messages."""
    for i, (a, b) in enumerate(zip(classes_a, classes_b, strict=False)):
        if a != b:
            return f"class {i} is '{a}' in one and '{b}' in the other"
    return f"{len(classes_a)} and {len(classes_b)} classes"
