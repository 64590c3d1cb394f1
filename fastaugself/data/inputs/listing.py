"""Text files that list photos: one path per line, with an optional label.

The label is separated by a tab, or by a space if it is a number and every line has one, as in Caffe's lists and
ImageNet's validation list: `val/ILSVRC2012_val_00000001.JPEG 65`.
"""

import os
import re
from collections.abc import Generator
from functools import partial
from pathlib import Path

from ...errors import UsageError
from .samples import Columns, Sample, Samples, fingerprint, number_classes, read_file

_SUFFIXES = (".txt", ".tsv", ".lst", ".list")
_MAX_BYTES = 1 << 30
_NUMBERED = re.compile(r"(.*\S) +(-?[0-9]{1,9})")


class ListedSamples(Samples):
    """The photos listed in a text file; relative paths are relative to the folder of that file."""

    def __init__(self, source: str, columns: Columns):
        self.source, path = source, Path(source)
        self._root = path.parent
        lines = _read_lines(path)
        self._names, labels = _split(lines, source)
        self.count = len(self._names)
        self._labels, self.classes = number_classes([None] * self.count if columns.label == "none" else labels, source)
        self._sizes, times = [], []
        for number, name in enumerate(self._names):
            try:
                status = os.stat(self._root / name)
            except OSError as error:
                at = lines[number][0]
                raise UsageError(f"{source}, line {at}: {self._root / name}: {error.strerror}") from None
            self._sizes.append(status.st_size)
            times.append(status.st_mtime_ns)
        self.fingerprint = fingerprint([self._names, labels, columns.label, self._sizes, times])

    def samples(self, start: int = 0) -> Generator[Sample]:
        for name, label, size in zip(self._names[start:], self._labels[start:], self._sizes[start:], strict=True):
            path = self._root / name
            yield Sample(name, label, str(path), partial(read_file, path, size))


def open_listing(source: str, columns: Columns) -> Samples | None:
    """Opens a list of photos; recognised by the extension of its name."""
    if not (source.lower().endswith(_SUFFIXES) and os.path.isfile(source)):
        return None
    return ListedSamples(source, columns)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """The non-empty lines, with their line numbers."""
    if path.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size} bytes: expected a list of paths, one per line")
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in text:
        raise UsageError(f"{path} is not a text file: expected a list of paths, one per line")
    lines = [os.fsdecode(line.removesuffix(b"\r")) for line in text.split(b"\n")]
    found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UsageError(f"{path} is empty: expected a list of paths, one per line")
    return found


def _split(lines: list[tuple[int, str]], source: str) -> tuple[list[str], list[int | str | None]]:
    """Names and labels of all lines, which must have the same form."""
    tabs = [line.count("\t") for _, line in lines]
    if any(tabs):
        if set(tabs) != {1}:
            number = next(number for (number, _), count in zip(lines, tabs, strict=True) if count != 1)
            raise UsageError(f"{source}, line {number}: expected a path, one tab and a label, as in the other lines")
        pairs = [line.split("\t") for _, line in lines]
        names, words = [name for name, _ in pairs], [word.strip() for _, word in pairs]
        if all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in words):
            return names, [int(word) for word in words]
        return names, [word or None for word in words]
    numbered = [_NUMBERED.fullmatch(line) for _, line in lines]
    root = Path(source).parent
    if all(numbered) and not os.path.exists(root / lines[0][1]):  # a file may be called `photo 1`
        return [match[1] for match in numbered if match], [int(match[2]) for match in numbered if match]
    return [line for _, line in lines], [None] * len(lines)
