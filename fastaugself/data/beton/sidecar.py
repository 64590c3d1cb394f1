"""What a `.beton` file cannot hold: class names, where it came from and how, known factors of each sample.

It stands beside the data as `OUT.beton.json`, one top-level key a line and the per-sample columns last, so that the
head of a million-sample sidecar is read without parsing them. What is known of each photo, manifest.py keeps.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .format import Beton

log = logging.getLogger(__name__)

FORMAT = "fastaugself-sidecar-2"
_PER_SAMPLE = "columns"


@dataclass(frozen=True)
class Sidecar:
    """classes: names by label, empty where there are none. source: the collection, as it was given.

    options: of the writer (max_side, quality). fingerprint: of the source's names, sizes and times, "" if none.
    counts: samples, passed_through, reencoded with the number per reason, unreadable, and pixels of all photos.
    beton: size in bytes and index_crc32 of the file this belongs to, filled in by the writer.
    columns: further values per sample, by name.
    """

    classes: list[str] = field(default_factory=list)
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    beton: dict[str, int] = field(default_factory=dict)
    columns: dict[str, list[float]] = field(default_factory=dict)


def path_of(beton: str | os.PathLike[str]) -> Path:
    """Where the sidecar of a `.beton` file stands."""
    return Path(f"{os.fspath(beton)}.json")


def dump(sidecar: Sidecar, beton: Beton) -> str:
    """The text of the sidecar of `beton`, which it names by size and checksum."""
    identity = {"bytes": beton.path.stat().st_size, "index_crc32": beton.index_crc32}
    content = {"format": FORMAT, **asdict(replace(sidecar, beton=identity))}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(beton: Beton, *, columns: bool = True) -> Sidecar | None:
    """The sidecar of `beton`; None where there is none that belongs to it.

    columns: read the per-sample columns too. A sidecar of other data (the `.beton` was replaced, or a writer was killed
    between its two renames) is reported in the log and not used.
    """
    path = path_of(beton.path)
    try:
        content = json.loads(path.read_text(encoding="utf-8") if columns else _head(path))
        found = content.pop("format")
        if found != FORMAT:
            log.warning("%s is not used: format %s, expected %s", path, found, FORMAT)
            return None
        sidecar = Sidecar(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is not used: %s; write the data again for class names", path, error)
        return None
    if sidecar.beton.get("index_crc32") != beton.index_crc32:
        log.warning("%s is not used: it was written for other data than %s", path, beton.path)
        return None
    return sidecar


def _head(path: Path) -> str:
    """The document up to its per-sample columns."""
    lines: list[str] = []
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(f'"{_PER_SAMPLE}":'):
                return "".join(lines).rstrip().rstrip(",") + "\n}"
            lines.append(line)
    return "".join(lines)
