"""Folders of photos: the files in a fixed order, with their classes."""

import os
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...errors import UsageError
from ..elsewhere import instead_of_folder
from .samples import Columns, Sample, Samples, fingerprint, read_file, some, unreadable
from .walk import Walk, is_folder, is_visible

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}  # names of folders that hold a split of a data set


class Folder(NamedTuple):
    """The listing of a folder.

    root: the folder. files: paths relative to it, '/'-separated, sorted. labels: class of each file, -1 without
    classes. sizes: bytes of each file. classes: class names, indexed by label. fingerprint: hash of all names, sizes
    and modification times. ignored: number of files whose extension is not one of photos. left_out: names, with
    reasons, of what may be photos but is not listed. faults: messages by number of the files that cannot be read.
    """

    root: Path
    files: list[str]
    labels: list[int]
    sizes: list[int]
    classes: list[str]
    fingerprint: str
    ignored: int
    left_out: list[str]
    faults: dict[int, str]


class FolderSamples(Samples):
    """The photos of a folder."""

    def __init__(self, source: str):
        self.source, self._folder = source, list_photos(source)
        self.count, self.classes = len(self._folder.files), self._folder.classes
        self.fingerprint, self.ignored = self._folder.fingerprint, self._folder.ignored
        self.left_out, self.faults = self._folder.left_out, self._folder.faults

    def samples(self, start: int = 0) -> Generator[Sample]:
        root, files, labels, sizes = self._folder.root, self._folder.files, self._folder.labels, self._folder.sizes
        for i in range(start, self.count):
            path = root / files[i]
            read = partial(unreadable, self.faults[i]) if i in self.faults else partial(read_file, path, sizes[i])
            yield Sample(files[i], labels[i], str(path), read)


def open_folder(source: str, columns: Columns) -> Samples | None:
    """Opens a folder of photos; accepts any folder, so other kinds must be tried first."""
    return FolderSamples(source) if os.path.isdir(source) else None


def list_photos(root: str | os.PathLike[str]) -> Folder:
    """Lists the photos below `root`; its subfolders are the classes, without subfolders there are no labels.

    Every subfolder counts as a class, even an empty one, so that the labels of train and val agree; one that holds
    outputs of this package and no photo (runs/, results/) does not. Hidden files and folders are ignored; links are
    followed.

    Raises UsageError if there are no photos or the classes are ambiguous.
    """
    root = Path(root)
    if not root.exists():
        raise UsageError(f"{root}: no such folder; pass a folder of photos")
    if not root.is_dir():
        raise UsageError(f"{root} is a file: pass a folder of photos (its subfolders are the classes)")
    below = Walk(root)
    if not below.found:
        instead = instead_of_folder(root) or (
            "expected files such as .jpg, .png or .webp, in one folder or in one folder per class"
            + (f"; convert or rename what is there: {some(below.left_out)}" if below.left_out else "")
        )
        raise UsageError(f"{root} holds no photos ({below.ignored} other files): {instead}")
    below.found.sort()
    names = [name for name, _, _ in below.found]
    classes = _classes(root, names, below)
    index = {name: i for i, name in enumerate(classes)}
    return Folder(
        root=root,
        files=names,
        labels=[index[name.split("/", 1)[0]] if classes else -1 for name in names],
        sizes=[size for _, size, _ in below.found],
        classes=classes,
        fingerprint=fingerprint([classes, *below.found]),
        ignored=below.ignored,
        left_out=below.left_out,
        faults={i: below.faults[name] for i, name in enumerate(names) if name in below.faults},
    )


def split_of(folder: str) -> str | None:
    """The split that a folder of this name holds, None if it is not the name of a split."""
    return next((split for split, names in SPLITS.items() if folder.lower() in names), None)


def _classes(root: Path, files: list[str], below: Walk) -> list[str]:
    loose = [name for name in files if "/" not in name]
    if len(loose) == len(files):
        return []
    folders = sorted(entry.name for entry in os.scandir(root) if is_visible(entry.name) and is_folder(entry))
    outputs = {name.split("/", 1)[0] for name in below.outputs} - {name.split("/", 1)[0] for name in files}
    folders = [name for name in folders if name not in outputs]
    if loose:
        raise UsageError(
            f"{root} holds photos ({loose[0]}, {len(loose)} in total) next to folders ({folders[0]}, ...), "
            f"so the classes are ambiguous: move the photos into a separate folder"
        )
    for name in folders:
        if name in below.repeated:
            raise UsageError(
                f"{root / name} is the same folder as {root / below.repeated[name]}, so the class of its photos is "
                f"ambiguous: remove one of the two"
            )
    for name in below.dead:
        if "/" not in name:
            raise UsageError(
                f"{root / name} is a link that leads nowhere ({os.readlink(root / name)}), so a class may be missing: "
                f"mend or remove the link"
            )
    if len(folders) > 1 and all(split_of(name) for name in folders):
        raise UsageError(
            f"{root} holds splits ({', '.join(folders)}), not classes: pass one of them, such as {root / folders[0]}"
        )
    return folders
