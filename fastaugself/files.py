"""Atomic file writes, and an early check that output paths are writable."""

import codecs
import contextlib
import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

from .errors import UsageError, of_the_system

log = logging.getLogger(__name__)

# Errors of file systems that lack an operation: NFS, Lustre without `-o flock`, CIFS, FUSE (sshfs, gcsfuse). 524 is the
# kernel's ENOTSUPP, which Python's errno does not have.
_LACKING = {errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, 524}
_without_locks: set[int] = set()  # devices that were warned about


def lock(fd: int, path: Path, *, wait: bool = False) -> bool:
    """Locks an open file for this process (flock); returns whether the file system of `path` has locks.

    If it has none, warns once. wait: wait for another process that holds the lock. Raises BlockingIOError if another
    process holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if isinstance(error, BlockingIOError) or error.errno not in _LACKING:
            raise
        device = os.fstat(fd).st_dev
        if device not in _without_locks:
            _without_locks.add(device)
            log.warning(
                "the file system of %s has no locks (%s): make sure that no other process writes there",
                path,
                os.strerror(error.errno),
            )
        return False
    return True


def sync(file: IO[Any]) -> None:
    """Flushes a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the file system can do that."""
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _LACKING | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}:
            raise


class Partial(NamedTuple):
    """A file that is being written under a temporary name, which is unique to this writer."""

    file: BinaryIO
    path: Path

    def become(self, path: Path) -> None:
        """Renames the file to `path` atomically: after a crash `path` has either its old content or the new one."""
        sync(self.file)
        os.replace(self.path, path)
        sync_folder(path.parent)  # so that the rename survives a power failure


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Partial]:
    """Context manager that opens a temporary file next to `path`, and deletes it on exit unless `become` renamed it.

    Creates the parent folder. Raises OSError, with `path` as its file name, if the file cannot be written.
    """
    name = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(name, "xb") as file:
            yield Partial(file, name)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(name)):
            error.filename = str(path)  # messages should name the target, not the temporary file
        raise
    finally:
        with contextlib.suppress(OSError):  # do not leave half a file on a full disk
            name.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file atomically; concurrent writers are safe. Raises OSError if it cannot be written."""
    with partial_file(path) as partial:
        partial.file.write(data)
        partial.become(path)


def utf8(text: str) -> bytes:
    """Text as UTF-8; the bytes of file names that are not UTF-8 (U+DC80 to U+DCFF in Python) are written escaped."""
    return text.encode("utf-8", "backslashreplace")


def read_text(path: Path) -> str:
    """The text of a file that a user may have written: UTF-8, with or without a byte-order mark.

    Bytes that are not UTF-8 become characters as in file names (U+DC80 to U+DCFF). Raises OSError, and ValueError for
    UTF-16.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16 text: save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed writers from a folder. No other process may be writing there."""
    for left in folder.glob("*.partial"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def tidy_folders(folder: Path) -> Iterator[None]:
    """Context manager that removes `folder` and its parents at the end if they are new and still empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the first that is not empty
            for path in new:
                path.rmdir()


def check_outputs(*paths: Path | None) -> None:
    """Raises UsageError early if one of the output files cannot be written; leaves no file or folder behind."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise UsageError(f"{path} cannot be written because it is a folder: pass a file")
        try:
            with tidy_folders(path.parent), partial_file(path):
                pass
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({of_the_system(error)}): pass another path") from None
