"""The documents that hold tables.

    python -m fastaugself.bench tables [--check]

A block of the README stands between `<!-- table NAME results/DEVICE/NAME.json -->` and `<!-- end of table -->`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ...errors import RunError, UsageError
from ..harness import Record
from . import augment, loader, rates, study
from .table import machine

BLOCK = re.compile(r"(<!-- table (\w+) (\S+\.json) -->\n).*?(<!-- end of table -->)", re.DOTALL)


class Tables(Protocol):
    """A module for the records of one kind."""

    def block(self, result: Record, path: str) -> str:
        """Of the README: what is most important of the record at `path`."""
        ...

    def page(self, result: Record) -> str:
        """Of the device's results: all of it."""
        ...


TABLES: Mapping[str, Tables] = {
    "augment": augment,
    "loader": loader,
    "study": study,
    "step": rates,
    "e2e": rates,
    "scale": rates,
}


def with_tables(text: str, root: Path) -> str:
    """The text of a README with every marked block made anew from the records under `root`.

    Raises UsageError for a block whose table or record is not there.
    """

    def block(match: re.Match[str]) -> str:
        begin, name, path, end = match.groups()
        if name not in TABLES:
            raise UsageError(f"a marked block asks for the table {name}; there are {', '.join(TABLES)}")
        if not (root / path).exists():
            raise UsageError(f"a marked block needs {path}, which is not there; measure it, or remove the block")
        return f"{begin}{TABLES[name].block(_read(root / path), path)}{end}"

    return BLOCK.sub(block, text)


def page(folder: Path) -> str:
    """The README.md of a device's results."""
    parts = [f"# {folder.name}\n\nMade by `python -m fastaugself.bench tables` from the records beside it.\n"]
    for name, module in TABLES.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = _read(path)
            title, where = ("eval study", study.about) if name == "study" else (f"bench {name}", machine)
            parts.append(f"## {title}\n\n{where(result)}.\n\n{module.page(result)}")
            if (folder / f"{name}.png").exists():
                parts.append(f"![the same as bars]({name}.png)\n")
    return "\n".join(parts)


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def tables(root: Path = Path("."), check: bool = False) -> None:
    """Makes the tables of README.md and of results/*/README.md anew from the records under results/.

    Args:
        root: The repository.
        check: Change nothing, and exit with 1 where something would change.
    """
    if not (root / "README.md").is_file():
        raise UsageError(f"{root.resolve()} has no README.md: run in the repository, or pass its folder with --root")
    wanted = {root / "README.md": with_tables((root / "README.md").read_text(encoding="utf-8"), root)}
    for folder in sorted({path.parent for name in TABLES for path in root.glob(f"results/*/{name}.json")}):
        wanted[folder / "README.md"] = page(folder)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise RunError(f"{', '.join(map(str, stale))} differ from the records; run python -m fastaugself.bench tables")
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(path)
