"""Standard output and standard error that a long job can rely on, whatever becomes of the terminal or file behind."""

import io
import os
import sys
from typing import Any

_NAMES = {1: "standard output", 2: "standard error"}


class Stream(io.RawIOBase):
    """A standard stream, by its file descriptor.

    lossy: whether to drop what cannot be written, because the disk is full or the reader has gone; otherwise OSError
    names the stream. fault: the first error of a lossy stream, None without.
    """

    fault: OSError | None = None

    def __init__(self, fd: int, *, lossy: bool):
        self._fd, self.lossy = fd, lossy

    def write(self, data: Any) -> int:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            if not self.lossy:
                error.filename = _NAMES[self._fd]
                raise
            self.fault = self.fault or error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)


def open_streams() -> None:
    """Makes standard output and standard error usable at the start of a command.

    Closed ones (`>&-`) are opened on the null device, so that no data file gets their descriptors. Characters that the
    locale lacks are written escaped. Standard error is lossy. Streams that were replaced by others, such as those of a
    notebook, stay as they are.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout, 1, lossy=False)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, 2, lossy=True)


def drop_output() -> None:
    """Makes standard output lossy, too: for a run, whose results are files, and after an error."""
    if (raw := _raw(sys.stdout)) is not None:
        raw.lossy = True


def console_fault() -> OSError | None:
    """The first error of writing to standard error, None without."""
    raw = _raw(sys.stderr)
    return raw.fault if raw is not None else None


def _raw(stream: Any) -> Stream | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, Stream) else None


def _stream(old: Any, fd: int, *, lossy: bool) -> io.TextIOWrapper:
    """A stream to `fd`, with the encoding and buffering of `old`."""
    raw: Any = Stream(fd, lossy=lossy)
    write_through = getattr(old, "write_through", False)  # as with PYTHONUNBUFFERED
    return io.TextIOWrapper(
        raw if write_through else io.BufferedWriter(raw),
        getattr(old, "encoding", None) or "utf-8",
        "backslashreplace",
        line_buffering=getattr(old, "line_buffering", False) or fd == 2,
        write_through=write_through,
    )
