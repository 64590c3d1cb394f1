"""Timing of contestants in turn, and the record of it.

Shared machines drift and stall: contestants take turns round by round, a rate counts the processor time of this process
on a CPU and the time between two synchronisations on a GPU, and what is reported is the median over the rounds and the
spread of the ratios within rounds. A contestant that is not installed, computes something else or fails is left out
with its reason and never ends the run.
"""

import contextlib
import datetime
import importlib.util
import json
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..environment import environment
from ..errors import UsageError
from ..files import check_outputs as check_files
from ..files import replace_file

Record = dict[str, Any]
T = TypeVar("T")
PICTURES = (".png", ".svg", ".pdf", ".webp")  # what matplotlib draws


@dataclass(frozen=True)
class Contestant:
    """name: of the row. call: does the work once. units: how many views (or samples) a call makes."""

    name: str
    call: Callable[[], Any]
    units: int


@dataclass(frozen=True)
class Row:
    """rounds: units per second of each round, in order."""

    name: str
    rounds: list[float]

    @property
    def rate(self) -> float:
        """Units per second, median over the rounds."""
        return statistics.median(self.rounds)


@dataclass(frozen=True)
class LeftOut:
    """A contestant without a row. reason: for people, one line."""

    name: str
    reason: str


def attempt(name: str, action: Callable[[], T]) -> T | LeftOut:
    """The result of `action`, or why there is none: peers fail in ways of their own."""
    try:
        return action()
    except Exception as error:
        return LeftOut(name, one_line(error))


def one_line(error: Exception) -> str:
    """An error as a reason: its kind where that says something, and the first line of its text."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, ImportError | ValueError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Ends what is inside with a TimeoutError after `seconds`, where Python gets to run (main thread, not Windows)."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # somebody else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - began)))


def measure(
    contestants: Sequence[Contestant], *, device: torch.device, rounds: int = 7, seconds: float = 1.0
) -> tuple[list[Row], list[LeftOut]]:
    """Times the contestants in turn, `rounds` times about `seconds` each, after one call each to warm up.

    Returns the rows in the order of the contestants, and those that failed on the way.
    """
    failed: list[LeftOut] = []
    racing: list[Contestant] = []
    for contestant in contestants:
        result = attempt(contestant.name, contestant.call)
        if isinstance(result, LeftOut):
            failed.append(result)
        else:
            racing.append(contestant)
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in racing}
    for round_ in range(rounds):
        shift = round_ % max(1, len(racing))  # nobody always follows the same neighbour
        for contestant in (*racing[shift:], *racing[:shift]):
            if contestant.name not in rates:
                continue
            rate = attempt(contestant.name, partial(_rate, contestant, device, seconds))
            if isinstance(rate, LeftOut):
                failed.append(rate)
                del rates[contestant.name]
            else:
                rates[contestant.name].append(rate)
    return [Row(name, values) for name, values in rates.items()], failed


def _rate(contestant: Contestant, device: torch.device, seconds: float, at_least: int = 1) -> float:
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize(device)
    began, wall, calls = clock(), time.perf_counter(), 0
    while calls < at_least or time.perf_counter() - wall < seconds:
        contestant.call()
        calls += 1
        if cuda and calls % 16 == 0:
            torch.cuda.synchronize(device)
    if cuda:
        torch.cuda.synchronize(device)
    return calls * contestant.units / (clock() - began)


def paired(
    base: Callable[[], Any], other: Callable[[], Any], *, device: torch.device, seconds: float, calls: int = 1
) -> list[float]:
    """How many times longer `other` takes than `base`, in eight or more neighbouring measurements of `calls` calls."""
    first, second = Contestant("base", base, 1), Contestant("other", other, 1)
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < 8 or time.perf_counter() - began < seconds:
        pair = (first, second) if len(found) % 2 == 0 else (second, first)  # neither always comes first
        rates = {contestant.name: _rate(contestant, device, 0.0, calls) for contestant in pair}
        found.append(rates["base"] / rates["other"])
    return found


def ratios(rows: Sequence[Row], ours: str) -> dict[str, dict[str, float]]:
    """How many times faster `ours` is than each other row: median, lowest and highest over the rounds."""
    mine = next(row for row in rows if row.name == ours)
    return {
        row.name: spread([a / b for a, b in zip(mine.rounds, row.rounds, strict=True)]) for row in rows if row != mine
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def record(
    rows: Sequence[Row],
    *,
    unit: str,
    config: Record,
    ratios: Record,
    device: torch.device,
    left_out: Sequence[LeftOut] = (),
    details: Mapping[str, Record] | None = None,
) -> Record:
    """The benchmark as JSON values.

    unit: such as views_per_s. details: further entries of a row, by its name.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "environment": environment(device) | {"load_average": os.getloadavg()},  # of 1, 5 and 15 minutes
        "config": config,
        "rows": [
            {"name": row.name, unit: row.rate, **(details or {}).get(row.name, {}), "rounds": row.rounds}
            for row in rows
        ],
        "ratios": ratios,
        "left_out": [{"name": peer.name, "reason": peer.reason} for peer in left_out],
    }


def check_outputs(json: Path | None, plot: Path | None = None) -> None:
    """Raises UsageError now rather than when the measuring is done: for places, kinds of picture, a missing package."""
    if plot is not None:
        if plot.suffix.lower() not in PICTURES:
            raise UsageError(f"--plot must end in {', '.join(PICTURES)}, got {plot}")
        if importlib.util.find_spec("matplotlib") is None:
            raise UsageError('--plot needs a package: pip install "fastaugself[plots]"')
    check_files(json, plot)


def write_json(path: Path, values: Record) -> None:
    """Writes the record, making its folder."""
    replace_file(path, (json.dumps(values, indent=2) + "\n").encode())
