"""The lock of a run folder: one training process at a time writes there."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError, of_the_system
from ..files import lock, tidy_folders

LOCK = "run.lock"


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Context manager that creates the run folder and locks it; folders that stay empty are removed again.

    The lock is the operating system's (flock), so it ends with its process, however that dies; the file alone locks
    nothing. A file system without locks is used without, with a warning. Raises UsageError if another process has the
    lock, and if the folder cannot be written to.
    """
    with tidy_folders(run):
        try:
            fd = _acquire(run)
        except OSError as error:
            raise UsageError(
                f"--run {run} cannot be written to ({of_the_system(error)}); pass another folder"
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (run / LOCK).unlink(missing_ok=True)
            os.close(fd)


def _acquire(run: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        try:
            run.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if os.path.lexists(run) and not run.is_dir():  # a file, or a link that leads nowhere
                raise
            continue  # a folder that another process has removed in the meantime
        try:
            fd = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another process has removed the folder that it had made
            continue
        try:
            try:
                lock(fd, run)
            except BlockingIOError:
                raise UsageError(
                    f"--run {run} is in use by another training process{_owner(fd)}; wait until it ends, or pass "
                    "another --run"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(run / LOCK)):
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its owner ended, and removed the file, after it was opened here


def _owner(fd: int) -> str:
    with contextlib.suppress(OSError):
        text = os.pread(fd, 200, 0).decode(errors="replace").strip()
        if text.isprintable() and text:
            return f" ({text})"
    return ""
