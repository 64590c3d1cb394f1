"""Exceptions to exit codes and one-line messages, the same for commands and recipes."""

import signal

import pytest
import torch

from fastaugself.cli.exit_codes import run_command
from fastaugself.errors import RunError, UsageError
from fastaugself.training.signals import Stopped


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("--seed"), 2, "error: --seed\n"),
        (RunError("damaged"), 1, "error: damaged\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "error: x: No such file or directory\n"),
        (MemoryError(), 1, "error: out of memory; buy more\n"),
        (torch.OutOfMemoryError("2 GiB\nmore lines"), 1, "error: out of memory (2 GiB); buy more\n"),
        (Stopped(signal.SIGTERM), 143, ""),
        (Stopped(signal.SIGUSR1), 138, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_exception_has_one_exit_code_and_at_most_one_line(error, code, message, capsys):
    assert run_command(failing(error), less_memory="buy more") == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(("error", "printed"), [(UsageError("wrong"), False), (RunError("lost"), True)])
def test_wrong_use_is_printed_by_rank_0_alone_and_failures_by_every_rank(error, printed, capsys):
    run_command(failing(error), less_memory="", is_main=lambda: False)
    assert bool(capsys.readouterr().err) == printed


def test_an_unexpected_exception_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0, less_memory="")


def test_the_code_of_the_command_is_returned():
    assert [run_command(lambda code=code: code, less_memory="") for code in (0, 1)] == [0, 1]
