"""Exceptions to exit codes: how every command of this project ends.

0: done. 1: a failure (damaged file, full disk, out of memory, NaN loss). 2: wrong use. 128 + signal: stopped by a
signal, with a checkpoint. 130: Ctrl-C. 141: the reader of standard output has closed it. Imports no torch.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

from ..errors import RunError, UsageError, of_the_system
from ..training.console import drop_output


class Ending(NamedTuple):
    """The exit code for an exception, and the message without "error: "; an empty message prints nothing."""

    code: int
    message: str = ""


def ending(error: BaseException, *, less_memory: str) -> Ending | None:
    """The exit code and message for an exception, or None for an unexpected one, which deserves its traceback.

    less_memory: the advice when memory ran out.
    """
    if isinstance(error, UsageError):
        return Ending(2, str(error))
    if isinstance(error, RunError):
        return Ending(1, str(error))
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        first_line = (str(error).splitlines() or [""])[0]
        return Ending(1, f"out of memory{f' ({first_line})' if first_line else ''}; {less_memory}")
    if isinstance(error, KeyboardInterrupt):
        return Ending(getattr(error, "exit_code", 130))  # training.signals.Stopped has the code of its signal
    if isinstance(error, BrokenPipeError):
        return Ending(141)
    if isinstance(error, OSError):  # a folder that may not be read, a full disk
        return Ending(1, of_the_system(error))
    return None


def run_command(command: Callable[[], int], *, less_memory: str, is_main: Callable[[], bool] = lambda: True) -> int:
    """Runs a command and returns its exit code; a known exception is printed to standard error in one line.

    is_main: whether this process is rank 0. Every rank raises the same UsageError, so only rank 0 prints it; any other
    failure may belong to one rank, which prints it itself. Unexpected exceptions are raised.
    """
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BaseException as error:
        ended = ending(error, less_memory=less_memory)
        if ended is None:
            raise
        if isinstance(error, OSError):
            drop_output()  # the interpreter flushes it at exit
        if ended.message and (is_main() or not isinstance(error, UsageError)):
            print(f"error: {ended.message}", file=sys.stderr)
        return ended.code


def _is_torch_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # imported by whoever raised it
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
