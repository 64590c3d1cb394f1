"""Sources with several files: one file, a folder of files, or a pattern such as `shard-{000..009}.tar`."""

import glob
import itertools
import os
import re
from pathlib import Path

from ...errors import UsageError
from .folder import SPLITS
from .walk import EXTENSIONS

_SPLITS = frozenset(itertools.chain(*SPLITS.values()))
_MAX_FILES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def find_files(source: str, suffixes: tuple[str, ...], *, folders: tuple[str, ...] = ("",)) -> list[Path] | None:
    """The files with one of these suffixes that `source` refers to, sorted; None if there are none.

    source: a file, a folder, or a pattern. suffixes: lower-case, such as ".tar". folders: subfolders to search if
    `source` is a folder; the first one with such files counts.

    Raises UsageError if files of a pattern are missing, a folder holds several splits, or photos or folders next to
    such files.
    """
    path = Path(source)
    if path.is_dir():
        for below in folders:
            found = sorted(p for p in path.joinpath(below).glob("*") if _fits(p, suffixes))
            if found:
                if not below:
                    _refuse_mixed_folder(path, found[0])
                _refuse_splits(path, found)
                return found
        return None
    if path.exists():
        return [path] if _fits(path, suffixes) else None
    if not source.lower().endswith(suffixes):
        return None
    expanded = expand_braces(source)
    if expanded == [source] and not glob.has_magic(source):
        return None
    files = [
        Path(match) for name in expanded for match in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])
    ]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        which = f"{missing[0]} is missing" if missing else "no file matches this pattern"
        raise UsageError(
            f"{source}: {which}; pass existing files, in quotes so that the shell does not expand the pattern"
        )
    return files


def expand_braces(pattern: str) -> list[str]:
    """Expands braces as a shell does: `{000..123}` is a range, `{a,b}` a list of alternatives.

    Raises UsageError for more than a million names.
    """
    pieces = _BRACES.split(pattern)
    choices = [[piece] if i % 2 == 0 else _choices(piece, pattern) for i, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MAX_FILES:
        raise UsageError(f"{pattern} expands to {count} files, expected at most {_MAX_FILES}")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str, pattern: str) -> list[str]:
    if counted := _RANGE.fullmatch(inside):
        first, last = counted.groups()
        if len(first) > 18 or len(last) > 18 or not 0 <= int(last) - int(first) < _MAX_FILES:
            raise UsageError(f"{pattern}: {{{inside}}} is not an increasing range of at most {_MAX_FILES} files")
        return [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    return inside.split(",") if "," in inside else ["{" + inside + "}"]


def _fits(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.is_file()


def _refuse_mixed_folder(folder: Path, found: Path) -> None:
    for path in folder.iterdir():
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in EXTENSIONS):
            raise UsageError(
                f"{folder} holds {found.name} next to {path.name}, so the source is ambiguous: pass "
                f"'{folder / '*'}{found.suffix}' for the {found.suffix} files, or move one of the two"
            )


def _refuse_splits(folder: Path, files: list[Path]) -> None:
    splits: dict[str, Path] = {}
    for file in files:
        for word in _SPLITS.intersection(re.split(r"[^a-z]+", file.name.lower())):
            splits.setdefault(word, file)
    if len(splits) > 1:
        first = splits[min(splits)]
        pattern = first.parent / re.sub(r"\d+", "*", first.name, count=1)
        raise UsageError(
            f"{folder} holds splits ({', '.join(sorted(splits))}): pass one of them as a pattern, such as '{pattern}'"
        )


def identity(files: list[Path]) -> list[tuple[str, int, int]]:
    """Name, size and modification time of each file."""
    found = [(file.name, os.stat(file)) for file in files]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]
