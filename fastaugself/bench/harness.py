"""Timing of contestants in turn, and the record.

Shared machines drift and stall, so contestants take turns in every round. A rate is measured in processor time of this
process on a CPU, and between two synchronisations on a GPU. Reported are the median over the rounds, and the range of
the ratios within rounds. A contestant that is not installed, computes something else or fails is left out with the
reason; the run continues.
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
PICTURES = (".png", ".svg", ".pdf", ".webp")  # formats of matplotlib


@dataclass(frozen=True)
class Contestant:
    """name: of its row. call: does the work once. units: number of views (or samples) per call."""

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
    """A contestant without a row. reason: one line for the table."""

    name: str
    reason: str


def attempt(name: str, action: Callable[[], T]) -> T | LeftOut:
    """The result of `action`, or a LeftOut with its exception: peers may raise anything."""
    try:
        return action()
    except Exception as error:
        return LeftOut(name, one_line(error))


def one_line(error: Exception) -> str:
    """An exception as one line: type (except ImportError and ValueError) and first line of the message."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, ImportError | ValueError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after `seconds`, once Python code runs (main thread only, not on Windows)."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # restore the alarm of an enclosing deadline
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer - (time.monotonic() - began)))


def measure(
    contestants: Sequence[Contestant], *, device: torch.device, rounds: int = 7, seconds: float = 1.0
) -> tuple[list[Row], list[LeftOut]]:
    """Times the contestants in turn, about `seconds` each in every round, after one warm-up call each.

    Returns the rows in the order of the contestants, and the contestants that failed.
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
        shift = round_ % max(1, len(racing))  # rotate the order, so that neighbours change
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
    """Time of `other` divided by that of `base`, in at least eight pairs of measurements of `calls` calls each."""
    first, second = Contestant("base", base, 1), Contestant("other", other, 1)
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < 8 or time.perf_counter() - began < seconds:
        pair = (first, second) if len(found) % 2 == 0 else (second, first)  # alternate the order
        rates = {contestant.name: _rate(contestant, device, 0.0, calls) for contestant in pair}
        found.append(rates["base"] / rates["other"])
    return found


def ratios(rows: Sequence[Row], ours: str) -> dict[str, dict[str, float]]:
    """Speed-up of `ours` over each other row: median, lowest and highest over the rounds."""
    mine = next(row for row in rows if row.name == ours)
    return {
        row.name: median_and_range([a / b for a, b in zip(mine.rounds, row.rounds, strict=True)])
        for row in rows
        if row != mine
    }


def median_and_range(values: Sequence[float]) -> dict[str, float]:
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
    """The benchmark's record, as JSON values.

    unit: key of the rate, such as views_per_s. details: further entries of each row, by its name.
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
    """Raises UsageError for unwritable paths, unknown image formats or missing matplotlib, before measuring."""
    if plot is not None:
        if plot.suffix.lower() not in PICTURES:
            raise UsageError(f"--plot must end in {', '.join(PICTURES)}, got {plot}")
        if importlib.util.find_spec("matplotlib") is None:
            raise UsageError('--plot needs a package: pip install "fastaugself[plots]"')
    check_files(json, plot)


def write_json(path: Path, values: Record) -> None:
    """Writes the record; creates its folder."""
    replace_file(path, (json.dumps(values, indent=2) + "\n").encode())
