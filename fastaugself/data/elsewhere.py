"""Where the data are if a path is not what was expected: the advice of messages, as a command or path to copy."""

import glob
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

_TABLES = (".parquet", ".arrow", ".feather")
_SOURCES = (*_TABLES, ".tar", ".txt", ".tsv", ".lst", ".list")  # files that `fastaugself write` reads
_DEPTH, _MOST = 3, 20_000  # of folders, and entries to look at


def instead_of_folder(folder: Path, *, training: bool = True) -> str:
    """What to do with a folder that holds no photos; "" if there is nothing in it that this project reads.

    Looks for `.beton` files, tables and shards in the folder and some levels below it. training: whether several files
    may be used as one data set.
    """
    found: dict[str, dict[Path, list[Path]]] = {}  # files by kind and folder
    for path in _files(folder):
        kind = "beton" if path.suffix == ".beton" else "other" if path.suffix.lower() in (*_TABLES, ".tar") else ""
        if kind:
            found.setdefault(kind, {}).setdefault(path.parent, []).append(path)
    if betons := found.get("beton"):
        files = sorted(path for inside in betons.values() for path in inside)
        if len(files) == 1:
            return f"pass its .beton file {files[0]}"
        alone = f"pass one of its {len(files)} .beton files, such as {files[0]}"
        together = shlex.quote(f"{files[0].parent}/*.beton")
        return f"{alone}, or for training {together}, all as one data set" if training and len(betons) == 1 else alone
    if others := found.get("other"):
        folders = sorted(others, key=lambda path: (path.name != "train", path))
        kind = sorted({path.suffix for inside in others.values() for path in inside})[0]
        where = f"its {kind} files are in {folders[0]}"
        if len(folders) > 1:
            where = f"it holds {len(folders)} folders with {kind} files ({', '.join(p.name for p in folders[:5])}), so "
            where += f"choose one, such as {folders[0]}"
        return f"{where}: {write_it(folders[0])}"
    return ""


def instead_of_file(path: Path) -> str:
    """What to do with a file that is not a `.beton` file."""
    if is_source(path):
        return write_it(path)
    if path.name.endswith((".beton.json", ".beton.manifest.jsonl", ".beton.unreadable.txt")):
        return f"it belongs to {path.parent / (path.name.split('.beton.')[0] + '.beton')}: pass that"
    return "pass a .beton file; `fastaugself write FOLDER OUT.beton` makes one from photos"


def is_source(path: Path) -> bool:
    """Whether `fastaugself write` reads files of this name."""
    return path.suffix.lower() in _SOURCES


def instead_of_photo(path: Path) -> str:
    """What to do with a single photo."""
    return f"for its folder, {write_it(path.parent)}"


def matches(pattern: Path) -> str:
    """The first match of a pattern where one file is expected, "" without."""
    found = sorted(glob.glob(os.fspath(pattern))) if glob.has_magic(os.fspath(pattern)) else []
    return found[0] if found else ""


def write_it(source: Path) -> str:
    """The command that converts a collection of photos."""
    return f"run `fastaugself write {shlex.quote(os.fspath(source))} OUT.beton` and pass OUT.beton"


def _files(folder: Path) -> Iterator[Path]:
    seen = 0
    for root, inside, files in os.walk(folder):
        depth = len(Path(root).relative_to(folder).parts)
        inside[:] = sorted(name for name in inside if not name.startswith(".")) if depth < _DEPTH else []
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name)
        seen += len(files) + len(inside)
        if seen > _MOST:
            return
