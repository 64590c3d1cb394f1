"""The interface between a kind of photo collection and the writer.

A new kind is a module in this folder with a function that takes the path (and Columns) and returns an instance of a
subclass of Samples, or None if the path is of another kind. Add the function to `_KINDS` in __init__.py.
"""

import errno
import hashlib
import logging
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UsageError

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 29  # per photo file; the largest image that Pillow decodes has 537 MB of pixels

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


class UnreadablePhoto(RunError):
    """A single photo that cannot be read: stops the job, or is skipped and listed."""


class Sample(NamedTuple):
    """One photo of a collection.

    name: name within the collection, stored in the manifest. label: class index, -1 without. place: where the photo
    is, for messages. read: returns the bytes of the image file, or uint8 pixels [H, W, 3], which are stored raw. It is
    called from several threads. It raises UnreadablePhoto for a fault of this photo, and RunError for a fault that
    concerns the whole collection (a lost disk, a collection that changed since it was opened).
    """

    name: str
    label: int
    place: str
    read: Callable[[], bytes | NDArray[np.uint8]]


class Samples(ABC):
    """A collection of photos.

    source: the path as it was passed. count: number of samples, known before any is read. classes: class names, indexed
    by label; empty without names. fingerprint: hash that changes whenever the samples change (names, sizes, times).
    ignored: number of files that are not photos. left_out: names, with reasons, of what may be photos but is not read.
    faults: messages by number of the samples that are known to be unreadable, such as missing files.

    Opening a collection reads names and sizes, but no photo.
    """

    source: str
    count: int
    classes: list[str]
    fingerprint: str
    ignored: int = 0
    left_out: Sequence[str] = ()
    faults: Mapping[int, str] = MappingProxyType({})

    @abstractmethod
    def samples(self, start: int = 0) -> Generator[Sample]:
        """Yields the samples in a fixed order, starting with number `start`."""


class Columns(NamedTuple):
    """Names of the columns to read, for collections that have columns.

    image, label: "" to detect the column. label: "none" to ignore labels.
    """

    image: str = ""
    label: str = ""


def unreadable(message: str) -> bytes:
    """Raises UnreadablePhoto; as Sample.read of a sample that is known to be unreadable."""
    raise UnreadablePhoto(message)


def some(names: Sequence[str], most: int = 10) -> str:
    """At most `most` of the names in words, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def fingerprint(parts: Iterable[object]) -> str:
    """A hash, 32 hexadecimal digits, of strings, numbers, and tuples and lists of these."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def number_classes(labels: list[int | str | None], source: str) -> tuple[list[int], list[str]]:
    """Returns labels as integers (-1 for None), and the sorted class names if the labels are names.

    Logs how many labels are missing, unless all are. Raises UsageError for a mixture of numbers and names, and for
    numbers outside -1 to 2147483647.
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
    without = labels.count(None)
    if 0 < without < len(labels):
        log.warning("%s: %d of %d photos have no label and get the label -1", source, without, len(labels))
    classes = sorted(names)
    index = {name: i for i, name in enumerate(classes)}
    return [-1 if label is None else label if isinstance(label, int) else index[label] for label in labels], classes


def read_file(path: Path, size: int, *, start: int = 0, length: int | None = None) -> bytes:
    """Reads `length` bytes (default: all) from byte `start` of a file that had `size` bytes when it was listed.

    Raises UnreadablePhoto and RunError as Sample.read does. Nothing is allocated before the size has been checked.
    """
    length = size if length is None else length
    if length > MAX_BYTES:
        raise UnreadablePhoto(f"{path} has {length} bytes, more than the limit of {MAX_BYTES >> 20} MiB for a photo")
    try:
        with open_file(path) as stream:
            if (now := os.fstat(stream.fileno()).st_size) != size:
                raise RunError(
                    f"{path} changed while it was being written ({size} bytes when it was listed, {now} now): "
                    f"run the command again"
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


def open_file(path: Path) -> FileIO:
    """Opens a file for reading, unbuffered. Raises UnreadablePhoto for anything else: opening a pipe waits forever."""
    if other := other_kind(os.stat(path)):
        raise UnreadablePhoto(f"{path} is {other}, not a file: replace or remove it")
    return path.open("rb", buffering=0)


def other_kind(status: os.stat_result) -> str:
    """What something is that is not a file, such as "a pipe"; "" for a file."""
    kind = stat.S_IFMT(status.st_mode)
    return "" if kind == stat.S_IFREG else _KINDS.get(kind, "a device")
