"""Text files that list photos: one path per line, with an optional label.

The label is separated by a tab, or by a space if it is a number, as in Caffe's lists and ImageNet's validation list:
`val/ILSVRC2012_val_00000001.JPEG 65`. Lines without a label get -1. Labels are all whole numbers, or all names.
"""

import os
import re
from collections.abc import Generator
from functools import partial
from pathlib import Path

from ...errors import UsageError
from .samples import Columns, Sample, Samples, fingerprint, number_classes, other_kind, read_file, unreadable

_SUFFIXES = (".txt", ".tsv", ".lst", ".list")
_MAX_BYTES = 1 << 30
_MAX_LABEL = (1 << 31) - 1
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_LIKE_A_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_NUMBERED = re.compile(rf"(.*\S) +({_NUMBER.pattern})\s*")


class ListedSamples(Samples):
    """The photos listed in a text file; relative paths are relative to the folder of that file."""

    def __init__(self, source: str, columns: Columns):
        self.source, path = source, Path(source)
        self._root = path.parent
        lines = _read_lines(path)
        self._names, words = _split(lines, source)
        self.count = len(self._names)
        numbers = [number for number, _ in lines]
        labels = _labels([""] * self.count if columns.label == "none" else words, numbers, source)
        self._labels, self.classes = number_classes(labels, source)
        self._sizes, times, self.faults = [], [], {}
        for i, name in enumerate(self._names):
            size, time, fault = _status(self._root / name)
            self._sizes.append(size)
            times.append(time)
            if fault:
                place = f"{source}, line {numbers[i]}: {self._root / name}"
                self.faults[i] = f"{place}: {fault}; replace it or remove the line"
        if len(self.faults) == self.count:
            raise UsageError(
                f"{self.faults[0]}; none of its {self.count} photos can be read, expected paths relative to the list"
            )
        self.fingerprint = fingerprint([self._names, labels, columns.label, self._sizes, times])

    def samples(self, start: int = 0) -> Generator[Sample]:
        for i in range(start, self.count):
            path = self._root / self._names[i]
            read = partial(unreadable, self.faults[i]) if i in self.faults else partial(read_file, path, self._sizes[i])
            yield Sample(self._names[i], self._labels[i], str(path), read)


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


def _status(path: Path) -> tuple[int, int, str]:
    """(size, modification time, "") of a file; (-1, -1, why) if it cannot be read."""
    try:
        status = os.stat(path)
    except OSError as error:
        return -1, -1, error.strerror or str(error)
    if other := other_kind(status):
        return -1, -1, f"it is {other}, not a file"
    return status.st_size, status.st_mtime_ns, ""


def _split(lines: list[tuple[int, str]], source: str) -> tuple[list[str], list[str]]:
    """Paths and labels of all lines, which must have the same form; "" without a label."""
    tabs = [line.count("\t") for _, line in lines]
    if any(tabs):
        if set(tabs) != {1}:
            number = next(number for (number, _), count in zip(lines, tabs, strict=True) if count != 1)
            raise UsageError(f"{source}, line {number}: expected a path, one tab and a label, as in the other lines")
        pairs = [line.split("\t") for _, line in lines]
        return [name for name, _ in pairs], [word.strip() for _, word in pairs]
    numbered = [_NUMBERED.fullmatch(line) for _, line in lines]
    root = Path(source).parent
    if not _has_numbers(numbered, root):
        return [line for _, line in lines], [""] * len(lines)
    names, words = [], []
    for (number, line), match in zip(lines, numbered, strict=True):
        name, word = (match[1], match[2]) if match else (line.rstrip(), "")
        if not match and " " in name and not os.path.exists(root / name):
            raise UsageError(
                f"{source}, line {number}: {line.strip()!r}, expected a path, a space and a whole number as in other "
                f"lines, or the path of a photo without a label"
            )
        names.append(name)
        words.append(word)
    return names, words


def _has_numbers(numbered: list[re.Match[str] | None], root: Path) -> bool:
    """Whether the lines end in labels: a file may also be called `photo 1`."""
    for match in filter(None, numbered):
        if os.path.exists(root / match.string):
            return False
        if os.path.exists(root / match[1]):
            return True
    return all(numbered)


def _labels(words: list[str], numbers: list[int], source: str) -> list[int | str | None]:
    """Labels from their words, which are all whole numbers or all names; numbers: of the lines."""
    given = [(word, number) for word, number in zip(words, numbers, strict=True) if word]
    like = [(word, number) for word, number in given if _LIKE_A_NUMBER.fullmatch(word)]
    if not like:
        return [word or None for word in words]
    names = [(word, number) for word, number in given if not _LIKE_A_NUMBER.fullmatch(word)]
    if names:
        (word, number), (other, elsewhere) = (names[0], like[0]) if len(names) <= len(like) else (like[0], names[0])
        raise UsageError(
            f"{source}, line {number}: the label is {word!r}, but {other!r} in line {elsewhere}: expected whole "
            f"numbers in all lines, or names in all lines, or nothing for no label"
        )
    for word, number in like:
        if not (_NUMBER.fullmatch(word) and -1 <= int(word) <= _MAX_LABEL):
            raise UsageError(
                f"{source}, line {number}: label {word}, expected numbers from 0 to {_MAX_LABEL}, or -1 or nothing for "
                f"none, or names in all lines"
            )
    return [int(word) if word else None for word in words]
