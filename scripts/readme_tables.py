"""Regenerates the tables of README.md and results/*/README.md from the records under results/.

    python scripts/readme_tables.py [--check]

A block of README.md stands between `<!-- table NAME results/DEVICE/NAME.json -->` and `<!-- end of table -->`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fastaugself.bench.harness import Record
from fastaugself.bench.tables import augment, host, loader, rates
from fastaugself.bench.tables.table import Table, machine, number
from fastaugself.cli.exit_codes import run_command
from fastaugself.errors import RunError, UsageError

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "studies" / name) for name in ("augself", "choices")]

import choices_table  # noqa: E402  found by the line above
import study_table  # noqa: E402

BLOCK = re.compile(r"(<!-- table (\w+) (\S+\.json) -->\n).*?(<!-- end of table -->)", re.DOTALL)


class Tables(NamedTuple):
    """How to print the records of one kind.

    title: heading of the section in results/DEVICE/README.md. about: one line on how the record was measured. block:
    the most important rows of the record at a path, for README.md. page: all rows.
    """

    title: str
    about: Callable[[Record], str]
    block: Callable[[Record, str], str]
    page: Callable[[Record], str]


def collapse_page(result: Record) -> str:
    """Loss, effective rank and k-NN accuracy before and after a few hundred steps."""
    c = result["config"]
    head = ("", "loss at first", "at last", "RankMe before", "after", "k-NN before", "after")
    rows = [(row["name"], *(number(value) for value in list(row.values())[1 : len(head)])) for row in result["rows"]]
    size = c.get("size") or c["view"]
    about = f"{c['steps']} steps at {size} px, presets of recipes/study.py; a RankMe (effective rank) of 1 is collapse."
    return f"{about}\n\n{Table(head, rows).markdown()}"


def _where(result: Record) -> str:
    environment = result["environment"]
    commit = f", commit {environment['commit']}" if "commit" in environment else ""
    return f"{environment['cpu']}{commit}, torch {environment['versions']['torch']}"


TABLES: Mapping[str, Tables] = {
    "augment": Tables("bench augment", machine, augment.block, augment.page),
    "loader": Tables("bench loader", machine, loader.block, loader.page),
    "study": Tables("study", study_table.about, study_table.block, study_table.page),
    "choices": Tables("training choices", machine, lambda result, path: choices_table.page(result), choices_table.page),
    "collapse": Tables(
        "a few hundred steps of every method", _where, lambda result, path: collapse_page(result), collapse_page
    ),
    "step": Tables("bench step", machine, rates.block, rates.page),
    "host": Tables("bench step --host", machine, host.block, host.page),
    "e2e": Tables("bench e2e", machine, rates.block, rates.page),
    "scale": Tables("bench scale", machine, rates.block, rates.page),
}


def with_tables(text: str, root: Path) -> str:
    """`text` with every marked block regenerated from the records under `root`.

    Raises UsageError for a block whose table is unknown or whose record is missing.
    """

    def block(match: re.Match[str]) -> str:
        begin, name, path, end = match.groups()
        if name not in TABLES:
            raise UsageError(f"a marked block names the table {name}, which is unknown; known: {', '.join(TABLES)}")
        if not (root / path).exists():
            raise UsageError(f"a marked block needs {path}, which does not exist; measure it, or remove the block")
        return f"{begin}{TABLES[name].block(_read(root / path), path)}{end}"

    return BLOCK.sub(block, text)


def results_page(folder: Path) -> str:
    """The README.md of results/DEVICE, which is `folder`."""
    parts = [f"# {folder.name}\n\nMade by `python scripts/readme_tables.py` from the records in this folder.\n"]
    for name, tables in TABLES.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = _read(path)
            parts.append(f"## {tables.title}\n\n{tables.about(result)}.\n\n{tables.page(result)}")
            if (folder / f"{name}.png").exists():
                parts.append(f"![bar chart of this table]({name}.png)\n")
    return "\n".join(parts)


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def update(root: Path, *, check: bool = False) -> list[Path]:
    """Regenerates README.md and results/*/README.md under `root`; returns the files that changed.

    check: write nothing, and raise RunError if a file would change. Raises UsageError without a README.md.
    """
    if not (root / "README.md").is_file():
        raise UsageError(f"{root.resolve()} has no README.md; pass the folder of the repository with --root")
    wanted = {root / "README.md": with_tables((root / "README.md").read_text(encoding="utf-8"), root)}
    for folder in sorted({path.parent for name in TABLES for path in root.glob(f"results/*/{name}.json")}):
        wanted[folder / "README.md"] = results_page(folder)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise RunError(f"{', '.join(map(str, stale))} differ from the records; run python scripts/readme_tables.py")
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return stale


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the repository (default: this checkout)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 if --check finds a difference, 2 for wrong use."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        for path in update(options.root, check=options.check):
            print(path)
        return 0

    return run_command(command, less_memory="close other programs")


if __name__ == "__main__":
    sys.exit(main())
