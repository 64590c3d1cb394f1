"""Walks a folder of photos: which files are photos, which may be but are not read, and which links lead nowhere."""

import os
from collections import deque
from collections.abc import Set as AbstractSet
from pathlib import Path

from .samples import other_kind

EXTENSIONS = frozenset(
    f".{name}"
    for name in ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "avif")
)  # selects files by name only; the decoder determines the actual format
_OF_CAMERAS = ("heic", "heif", "hif", "dng", "raw", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf")
_OF_THE_WEB = ("jxl", "jxr", "wdp", "jp2", "j2k", "jpx", "jpg_large", "jpeg_large", "png_large", "apng", "mpo", "svg")
_OF_PROGRAMS = ("pnm", "pbm", "dib", "tga", "ico", "psd", "exr", "hdr")
UNSUPPORTED = frozenset(f".{name}" for name in (*_OF_CAMERAS, *_OF_THE_WEB, *_OF_PROGRAMS))  # photos that are not read
_CONTENTS = (
    (0, b"\xff\xd8\xff", "a JPEG"),
    (0, b"\x89PNG\r\n", "a PNG"),
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (8, b"WEBP", "a WebP"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyphe", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
)  # where in a file, the bytes there, and what it is

_OUTPUTS = (
    ("config.json", "checkpoints"),
    ("config.json", "model.safetensors"),
    ("run.lock",),
    ("results.csv", "results.md"),
)  # names that runs, exports and results have, each sufficient


class Walk:
    """Everything visible below a folder. A folder is listed once, under its own name rather than that of a link.

    found: name, size and modification time of every photo; -1 for one that cannot be read, with its message in faults.
    repeated: folders that are the same as another one, by name, with that one's. dead: links that lead nowhere.
    ignored: number of files whose extension is not one of photos. left_out: names, with reasons, of what may be photos
    but is not in found. outputs: what this package wrote: folders of runs, exports and results, which are not entered,
    and `.beton` files.
    """

    def __init__(self, root: Path):
        self.found: list[tuple[str, int, int]] = []
        self.faults: dict[str, str] = {}
        self.repeated: dict[str, str] = {}
        self.dead: list[str] = []
        self.left_out: list[str] = []
        self.outputs: list[str] = []
        self.ignored = 0
        self._root = root
        entered: dict[tuple[int, int], str] = {}
        folders, links = deque([""]), deque[str]()
        while folders or links:
            below = folders.popleft() if folders else links.popleft()
            status = os.stat(root / below)
            first = entered.setdefault((status.st_dev, status.st_ino), below)
            if first != below:
                self.repeated[below] = first
                self.left_out.append(f"{below} (the same folder as {first or root})")
                continue
            with os.scandir(root / below) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
            if below and is_output({entry.name for entry in entries}):
                self.outputs.append(below)
                if any(os.path.splitext(entry.name)[1].lower() in EXTENSIONS for entry in entries):
                    self.left_out.append(f"{below} (a run, an export or results)")
                continue
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if not is_visible(entry.name):
                    continue
                if is_folder(entry):
                    (links if entry.is_symlink() else folders).append(name)
                else:
                    self._add(name, entry)

    def _add(self, name: str, entry: os.DirEntry[str]) -> None:
        photo, size, time, fault = os.path.splitext(name)[1].lower() in EXTENSIONS, -1, -1, ""
        try:
            status = entry.stat()
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
            if entry.is_symlink():
                fault = f"is a link that leads nowhere ({os.readlink(entry.path)})"
                if not photo:
                    self.dead.append(name)
        else:
            size, time = status.st_size, status.st_mtime_ns
            if other := other_kind(status):
                fault = f"is {other}, not a file"
        if photo:
            self.found.append((name, size, time))
            if fault:
                self.faults[name] = f"{self._root / name} {fault}: replace or remove it"
        elif fault:
            self.left_out.append(f"{name} ({fault})")
        else:
            self.ignored += 1
            if ".beton" in name.rpartition("/")[2]:
                self.outputs.append(name)
            if kind := _kind(entry.path):
                self.left_out.append(f"{name} ({kind})")


def is_output(names: AbstractSet[str]) -> bool:
    """Whether a folder with files and folders of these names is a run, an export or results of this package."""
    return any(names >= set(output) for output in _OUTPUTS)


def is_visible(name: str) -> bool:
    """Whether a file or folder is taken into account."""
    return not name.startswith(".") and name != "__MACOSX"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _kind(path: str) -> str:
    """Why a file with another ending may be a photo: by its ending, or by its first bytes; "" if it is none."""
    if os.path.splitext(path)[1].lower() in UNSUPPORTED:
        return "photos of this kind are not read"
    try:
        with open(path, "rb", buffering=0) as stream:
            start = stream.read(12)
    except OSError:
        return ""
    found = next((kind for at, magic, kind in _CONTENTS if start.startswith(magic, at)), "")
    return f"{found} without the ending of one" if found else ""
