"""Runs a contestant in a separate process, to contain global settings, leaks and crashes of libraries.

Prefetch queues distort short measurements. Here a round begins and ends when they are full and all threads and worker
processes are idle, so the batches taken in a round are as many as were made in it.
"""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from .harness import one_line

IDLE_SECONDS = 0.05  # without a running thread, after which the contestant counts as idle
POLL_SECONDS = 0.005
PATIENCE_SECONDS = 60
_TICK = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


@dataclass(frozen=True)
class Racer:
    """batches: an endless iterator. check: takes the first epoch from `batches` and returns values to compare."""

    batches: Iterator[Any]
    batch_size: int
    check: Callable[[], dict[str, Any]]


class Round(NamedTuple):
    """Number of samples made in `wall` seconds of time and `cpu` seconds of processor time."""

    samples: int
    wall: float
    cpu: float


class ContestantError(ValueError):
    """A failure in a contestant's process, with its reason."""


class Remote:
    """The parent's handle of a contestant; the picklable `make(*arguments)` builds its Racer in the child process."""

    def __init__(self, make: Callable[..., Racer], arguments: tuple[Any, ...], cores: int):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments, cores))
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Waits until the contestant is built. Raises ContestantError if that fails."""
        self._receive()

    def start_check(self) -> None:
        """Starts the check without waiting, so that several contestants check in parallel."""
        self._connection.send(("check", None))

    def checked(self) -> dict[str, Any]:
        """Waits for the result of Racer.check."""
        return self._receive()

    def round(self, seconds: float) -> Round:
        """Runs one round of about `seconds`."""
        return Round(*self._ask("round", seconds))

    def memory(self) -> int:
        """Bytes of anonymous and shared memory of the process and its workers, without memory-mapped files."""
        return self._ask("memory", None)

    def _ask(self, what: str, argument: Any) -> Any:
        self._connection.send((what, argument))
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            raise ContestantError(f"its process ended with exit code {self._process.exitcode}") from None
        if kind == "error":
            raise ContestantError(value)
        return value

    def end(self) -> None:
        """Ends the process and its workers without waiting."""
        self._connection.close()

    def close(self) -> None:
        """Ends the process and its workers, and waits for them."""
        self.end()
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, make: Callable[..., Racer], arguments: tuple[Any, ...], cores: int) -> None:
    """The child process: answers requests until the parent closes the connection."""
    _quiet()
    try:
        racer = make(*arguments)
        next(racer.batches)  # compiles, starts workers
        _pin(cores)
    except Exception as error:
        connection.send(("error", one_line(error)))
        return
    connection.send(("ready", None))
    actions: dict[str, Callable[[Any], Any]] = {
        "check": lambda _: racer.check(),
        "round": lambda seconds: time_round(racer, seconds),
        "memory": lambda _: _memory(),
    }
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            what, argument = connection.recv()
            try:
                connection.send(("done", actions[what](argument)))
            except Exception as error:
                connection.send(("error", one_line(error)))


def _quiet() -> None:
    """Discards stdout and stderr: numba warns about every function that FFCV discards."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(devnull, stream)


def _pin(cores: int) -> None:
    """Restricts all threads of this process and its workers to the first `cores` cores, on systems that support it."""
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    for process in (os.getpid(), *_workers()):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), allowed)


def time_round(racer: Racer, seconds: float) -> Round:
    """One round of a contestant: batches for so many seconds, begun and ended with full queues."""
    workers = _workers()
    _wait_until_idle(workers)
    began, here, elsewhere, batches = time.perf_counter(), time.thread_time(), _elsewhere(workers), 0
    while batches == 0 or time.perf_counter() - began < seconds:
        next(racer.batches)
        batches += 1
    here = time.thread_time() - here
    ended, spent = _wait_until_idle(workers)
    return Round(batches * racer.batch_size, ended - began, here + spent - elsewhere)


def _wait_until_idle(workers: Sequence[int]) -> tuple[float, float]:
    """Waits until all threads are idle; returns the time of the last activity, and `_elsewhere` at that time."""
    began = progress = time.perf_counter()
    while time.perf_counter() - progress < IDLE_SECONDS:
        if time.perf_counter() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"still busy after {PATIENCE_SECONDS} s, although no batch was taken")
        time.sleep(POLL_SECONDS)
        if _busy(workers):
            progress = time.perf_counter()
    return progress, _elsewhere(workers)


def _busy(workers: Sequence[int]) -> bool:
    """Whether another thread of this process or of its workers is running or runnable."""
    this = threading.get_native_id()
    for process in (os.getpid(), *workers):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{process}/task/{thread}/stat") as stream:
                    state = stream.read().rpartition(")")[2].split()[0]
                if state in "RD" and int(thread) != this:
                    return True
    return False


def _workers() -> list[int]:
    return [worker.pid for worker in multiprocessing.active_children() if worker.pid]


def _elsewhere(workers: Sequence[int]) -> float:
    """Processor seconds of all other threads of this process, and of its workers."""
    spent = time.process_time() - time.thread_time()
    for worker in workers:
        with open(f"/proc/{worker}/stat") as stream:
            user, system = stream.read().rpartition(")")[2].split()[11:13]
        spent += (int(user) + int(system)) * _TICK
    return spent


def _memory() -> int:
    """Proportional set size: memory that processes share counts once. 0 on systems that do not report it."""
    total = 0
    for process in (os.getpid(), *_workers()):
        with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup") as stream:
            for line in stream:
                name, *value = line.split()
                if name in ("Pss_Anon:", "Pss_Shmem:"):
                    total += int(value[0]) * 1024
    return total
