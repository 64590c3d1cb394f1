"""Folders of photos: the files in a fixed order, with their classes."""

import os
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...errors import UsageError
from .samples import Columns, Sample, Samples, fingerprint, read_file

EXTENSIONS = frozenset(
    f".{name}"
    for name in ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "avif")
)  # selects files by name only; the decoder determines the actual format
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test"})


class Folder(NamedTuple):
    """The listing of a folder.

    root: the folder. files: paths relative to it, '/'-separated, sorted. labels: class of each file, -1 without
    classes. sizes: bytes of each file. classes: class names, indexed by label. fingerprint: hash of all names, sizes
    and modification times. ignored: number of files whose extension is not one of photos.
    """

    root: Path
    files: list[str]
    labels: list[int]
    sizes: list[int]
    classes: list[str]
    fingerprint: str
    ignored: int


class FolderSamples(Samples):
    """The photos of a folder."""

    def __init__(self, source: str):
        self.source, self._folder = source, list_photos(source)
        self.count, self.classes = len(self._folder.files), self._folder.classes
        self.fingerprint, self.ignored = self._folder.fingerprint, self._folder.ignored

    def samples(self, start: int = 0) -> Generator[Sample]:
        root, files, labels, sizes = self._folder.root, self._folder.files, self._folder.labels, self._folder.sizes
        for i in range(start, self.count):
            path = root / files[i]
            yield Sample(files[i], labels[i], str(path), partial(read_file, path, sizes[i]))


def open_folder(source: str, columns: Columns) -> Samples | None:
    """Opens a folder of photos; accepts any folder, so other kinds must be tried first."""
    return FolderSamples(source) if os.path.isdir(source) else None


def list_photos(root: str | os.PathLike[str]) -> Folder:
    """Lists the photos below `root`; its subfolders are the classes, without subfolders there are no labels.

    Every subfolder counts as a class, even an empty one, so that the labels of train and val agree. Hidden files and
    folders are ignored; links are followed.

    Raises UsageError if there are no photos or the classes are ambiguous.
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
            f"in one folder or in one folder per class"
        )
    found.sort()
    classes = _classes(root, [name for name, _, _ in found])
    index = {name: i for i, name in enumerate(classes)}
    return Folder(
        root=root,
        files=[name for name, _, _ in found],
        labels=[index[name.split("/", 1)[0]] if classes else -1 for name, _, _ in found],
        sizes=[size for _, size, _ in found],
        classes=classes,
        fingerprint=fingerprint([classes, *found]),
        ignored=ignored,
    )


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yields every visible file below `root` with its status; visits a folder once if links lead to it repeatedly."""
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
            f"{root} holds photos ({loose[0]}, {len(loose)} in total) next to folders ({folders[0]}, ...), "
            f"so the classes are ambiguous: move the photos into a separate folder"
        )
    if len(folders) > 1 and _SPLITS.issuperset(name.lower() for name in folders):
        raise UsageError(
            f"{root} holds splits ({', '.join(folders)}), not classes: pass one of them, such as {root / folders[0]}"
        )
    return folders
