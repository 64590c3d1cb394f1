"""What every kind of photo collection looks like to the writer.

A new kind is a module beside this one: a function that takes the path (and Columns), returns None where it is not
its own, else a subclass of Samples; and a line in `open_samples`.
"""

import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UsageError

MAX_BYTES = 1 << 29  # of one photo's file; the largest that Pillow would decode has 537 MB of pixels

_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


class UnreadablePhoto(RunError):
    """A photo that cannot be used, through no fault of the rest: stops the job, or is left out and listed."""


class Sample(NamedTuple):
    """name: of the photo within its collection, kept in the manifest. label: its class, -1 without.

    place: where it is, in words for messages. read: its file's bytes, or uint8 pixels [H, W, 3], which are stored as
    they are; called in one of several threads. Raises UnreadablePhoto for this photo's own faults and RunError for
    what concerns all of them (a lost disk, a collection that changed since it was opened).
    """

    name: str
    label: int
    place: str
    read: Callable[[], bytes | NDArray[np.uint8]]


class Samples(ABC):
    """A collection of photos: how many there are, their classes, and each in turn.

    source: the path as it was given. count: number of samples, known before any is read. classes: names by label,
    empty where there are none. fingerprint: changes with anything that changes the samples (names, sizes, times).
    ignored: files in it that are no photos.

    Opening one reads names and sizes, no photo.
    """

    source: str
    count: int
    classes: list[str]
    fingerprint: str
    ignored: int = 0

    @abstractmethod
    def samples(self, start: int = 0) -> Generator[Sample]:
        """The samples from number `start` on, in an order that is always the same."""


class Columns(NamedTuple):
    """Names of the columns to read, of collections that have columns; "" to look for them.

    label: "none" for no labels.
    """

    image: str = ""
    label: str = ""


def fingerprint(parts: Iterable[object]) -> str:
    """32 hexadecimal digits that change with any of the parts: strings, numbers, and tuples and lists of these."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def number_classes(labels: list[int | str | None], source: str) -> tuple[list[int], list[str]]:
    """Labels as integers (-1 for None), and the names of the classes where labels are names, sorted.

    Raises UsageError where some are numbers and others names, and for negative numbers.
    """
    names = {label for label in labels if isinstance(label, str)}
    numbers = {label for label in labels if isinstance(label, int)}
    if names and numbers:
        raise UsageError(
            f"{source}: some labels are numbers ({min(numbers)}, ...), others names ({min(names)}, ...): "
            f"expected one kind"
        )
    if numbers and not (min(numbers) >= -1 and max(numbers) < 1 << 31):
        wrong = min(numbers) if min(numbers) < -1 else max(numbers)
        raise UsageError(f"{source}: label {wrong}, expected numbers from 0 to 2147483647, or -1 for none")
    classes = sorted(names)
    index = {name: i for i, name in enumerate(classes)}
    return [-1 if label is None else label if isinstance(label, int) else index[label] for label in labels], classes


def read_file(path: Path, size: int, *, start: int = 0, length: int | None = None) -> bytes:
    """The `length` bytes from `start` on, by default all, of a file that had `size` bytes when it was listed.

    Raises UnreadablePhoto and RunError as Sample.read does. Nothing is allocated before the size is known.
    """
    length = size if length is None else length
    if length > MAX_BYTES:
        raise UnreadablePhoto(f"{path} has {length} bytes, more than the limit of {MAX_BYTES >> 20} MiB for a photo")
    try:
        with path.open("rb", buffering=0) as stream:
            if (now := os.fstat(stream.fileno()).st_size) != size:
                raise RunError(
                    f"{path} changed while it was being written ({size} bytes when it was listed, {now} now): "
                    f"give the command again"
                )
            stream.seek(start)
            data = stream.read(length)
    except OSError as error:
        if error.errno in _OF_THE_FILE:
            raise UnreadablePhoto(f"{path} cannot be read: {error.strerror}") from error
        raise RunError(f"{path} cannot be read: {error.strerror}; is its disk there?") from error
    if data is None or len(data) != length:
        raise RunError(f"{path} ended early while it was being read; is its disk there?")
    return data
