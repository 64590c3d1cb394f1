"""Timing of contestants in turn, and the record of it.

Shared machines drift and stall: contestants take turns round by round, a rate counts the processor time of this process
on a CPU and the time between two synchronisations on a GPU, and what is reported is the median over the rounds and the
spread of the ratios within rounds.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..training.checkpoint import write_atomically
from ..training.environment import environment


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


def measure(
    contestants: Sequence[Contestant], *, device: torch.device, rounds: int = 7, seconds: float = 1.0
) -> list[Row]:
    """Times the contestants in turn, `rounds` times about `seconds` each, after one call each to warm up."""
    for contestant in contestants:
        contestant.call()
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for round_ in range(rounds):
        shift = round_ % len(contestants)  # nobody always follows the same neighbour
        for contestant in (*contestants[shift:], *contestants[:shift]):
            rates[contestant.name].append(_rate(contestant, device, seconds))
    return [Row(name, values) for name, values in rates.items()]


def _rate(contestant: Contestant, device: torch.device, seconds: float) -> float:
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize(device)
    began, wall, calls = clock(), time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - wall < seconds:
        contestant.call()
        calls += 1
        if cuda and calls % 16 == 0:
            torch.cuda.synchronize(device)
    if cuda:
        torch.cuda.synchronize(device)
    return calls * contestant.units / (clock() - began)


def ratios(rows: Sequence[Row], ours: str) -> dict[str, dict[str, float]]:
    """How many times faster `ours` is than each other row: median, lowest and highest over the rounds."""
    mine = next(row for row in rows if row.name == ours)
    found = {}
    for row in rows:
        if row.name != ours:
            values = [a / b for a, b in zip(mine.rounds, row.rounds, strict=True)]
            found[row.name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return found


def record(
    rows: Sequence[Row], *, unit: str, config: dict[str, Any], ratios: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """The benchmark as JSON values. unit: such as views_per_s."""
    return {
        "environment": environment(device),
        "config": config,
        "rows": [{"name": row.name, unit: row.rate, "rounds": row.rounds} for row in rows],
        "ratios": ratios,
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes the record, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())
