"""The photos of a folder, in a fixed order, with the class each belongs to."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError

EXTENSIONS = frozenset(
    f".{name}"
    for name in ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "avif")
)  # by name only; what a file really is, the decoder says
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test"})


class Folder(NamedTuple):
    """root: the folder. files: paths below it, '/'-separated, sorted. labels: class of each file, -1 without classes.

    classes: names by label. fingerprint: changes with any name, size or modification time. largest: bytes of the
    largest file. ignored: files that are no photos by their names.
    """

    root: Path
    files: list[str]
    labels: list[int]
    classes: list[str]
    fingerprint: str
    largest: int
    ignored: int


def list_photos(root: str | os.PathLike[str]) -> Folder:
    """Lists the photos below `root`: its subfolders are the classes, or, without subfolders, there are no labels.

    Every subfolder counts as a class, one without photos too, so that train and val number their classes alike. Hidden
    files and folders are left out; links are followed.

    Raises UsageError where there is nothing to list or the classes are ambiguous.
    """
    root = Path(root)
    if not root.exists():
        raise UsageError(f"{root}: no such folder; pass a folder of photos")
    if not root.is_dir():
        raise UsageError(f"{root} is a file: pass a folder of photos (its subfolders are the classes)")
    found: list[tuple[str, int, int]] = []
    ignored = 0
    for name, status in _walk(root):
        if os.path.splitext(name)[1].lower() in EXTENSIONS:
            found.append((name, status.st_size, status.st_mtime_ns))
        else:
            ignored += 1
    if not found:
        raise UsageError(
            f"{root} holds no photos ({ignored} other files): expected files such as .jpg, .png or .webp, "
            f"in one folder or one folder a class"
        )
    found.sort()
    classes = _classes(root, [name for name, _, _ in found])
    index = {name: i for i, name in enumerate(classes)}
    digest = hashlib.blake2b(repr(classes).encode("utf-8", "surrogateescape"), digest_size=16)
    for entry in found:
        digest.update(repr(entry).encode("utf-8", "surrogateescape"))
    return Folder(
        root=root,
        files=[name for name, _, _ in found],
        labels=[index[name.split("/", 1)[0]] if classes else -1 for name, _, _ in found],
        classes=classes,
        fingerprint=digest.hexdigest(),
        largest=max(size for _, size, _ in found),
        ignored=ignored,
    )


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every visible file below `root` with its status; a folder reached twice through links is entered once."""
    entered: set[tuple[int, int]] = set()
    todo = [""]
    while todo:
        below = todo.pop()
        status = os.stat(root / below)
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(root / below) as entries:
            for entry in entries:
                name = f"{below}{entry.name}"
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    todo.append(f"{name}/")
                elif entry.is_file():
                    yield name, entry.stat()


def _classes(root: Path, files: list[str]) -> list[str]:
    loose = [name for name in files if "/" not in name]
    if len(loose) == len(files):
        return []
    folders = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    folders = [name for name in folders if name != "__MACOSX"]
    if loose:
        raise UsageError(
            f"{root} holds photos ({loose[0]}, {len(loose)} in all) beside folders ({folders[0]}, ...), "
            f"so the classes are ambiguous: move them into a folder of their own"
        )
    if len(folders) > 1 and _SPLITS.issuperset(name.lower() for name in folders):
        raise UsageError(
            f"{root} holds splits ({', '.join(folders)}), not classes: pass one of them, such as {root / folders[0]}"
        )
    return folders
