"""Views per second of MoCo v2's augmentation, compared with other libraries.

Every contestant makes 224 px views of the same real photos of 375 x 500 with random resized crop (antialiased if the
library can), flip, colour jitter, grayscale, blur and normalisation at MoCo v2's ranges and probabilities, with new
parameters for every view. Before the timing, our back-ends and the other forms of the oracle are compared with the
oracle, and the statistics of each peer's views with ours; a contestant that fails the check is not timed. Then all
take turns in one run.
"""

import contextlib
import importlib.metadata
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from fastaugself_kernels import ViewPolicy

from ..distributed import DeviceName, resolve_device
from . import equivalence, ours, peers
from .equivalence import TOLERANCES, differences, some_views, statistics
from .harness import (
    Contestant,
    LeftOut,
    Record,
    Row,
    attempt,
    check_outputs,
    deadline,
    measure,
    median_and_range,
    paired,
    ratios,
    record,
    write_json,
)
from .limits import COPY, copy_contestant, launches
from .tables.augment import augment_table, emission_table
from .work import PHOTO, Maker, Ready, Work, natural_photos, photos_of, resized


@dataclass(frozen=True)
class Case:
    """A workload and its contestants. suffix: of the names of its rows, empty for the main case."""

    suffix: str
    work: Work
    makers: Mapping[str, Maker]
    checked: bool = False  # compare the peers' views with ours; other cases rely on an earlier check


def augment_benchmark(
    json: Path | None = None,
    plot: Path | None = None,
    size: int = 224,
    photos: int | None = None,
    rounds: int = 7,
    seconds: float = 0.5,
    device: DeviceName = "auto",
    source: Path | None = None,
    quick: bool = False,
    without: tuple[str, ...] = (),
    limit: float = 120,
    patience: float = 900,
) -> None:
    """Views per second against the augmentation libraries that are installed.

    Args:
        json: Write the result to this file.
        plot: Write a bar chart to this image file.
        size: Size of the views in pixels.
        photos: Batch size (default: 64 on a CPU, 32 with --quick, 512 on a GPU).
        rounds: Number of rounds; in each, every contestant runs once.
        seconds: Seconds per contestant and round.
        device: cpu (one thread), cuda, or auto: CUDA if available.
        source: A .beton file whose photos are used, resized to 375 x 500; default: photos of scikit-image.
        quick: Fewer rounds, fewer checked views, and no slow contestants: less than a minute, and 15 s more the first
            time, for compiling the kernels.
        without: Names of contestants to skip.
        limit: Time limit in seconds for setting up and checking one contestant.
        patience: Time limit in seconds for setting up all contestants; the remaining ones are skipped.
    """
    check_outputs(json, plot)
    where = resolve_device(device)
    if where.type == "cpu":
        torch.set_num_threads(1)
    if quick:
        rounds, seconds = min(rounds, 3), min(seconds, 0.2)
    skipped = dict.fromkeys(without, "not asked for")
    if quick:
        skipped |= dict.fromkeys(peers.SLOW, "not with --quick")
    batch = photos or (512 if where.type == "cuda" else 32 if quick else 64)
    cases = peer_cases(where, size, batch, source, quick)
    contestants, details, left_out = _ready(
        cases, skipped, limit, time.monotonic() + patience, 128 if quick else equivalence.COMPARED
    )
    rows, failed = measure([copy_contestant(where), *contestants], device=where, rounds=rounds, seconds=seconds)
    left_out += failed
    copy, rows = next(row for row in rows if row.name == COPY), [row for row in rows if row.name != COPY]
    for row in rows:
        details[row.name] |= _speed(row, copy, details[row.name])
    compared: Record = {}
    for case in cases:
        compared |= ratios(
            [row for row in rows if details[row.name]["case"] == case.suffix], _ours(where) + case.suffix
        )
    config = {
        "photos": list(PHOTO),
        "size": size,
        "batch": cases[0].work.batch,
        "views": cases[0].work.views,
        "dtype": str(cases[0].work.dtype).removeprefix("torch."),
        "rounds": rounds,
        "seconds": seconds,
        "threads": 1 if where.type == "cpu" else None,
        "tolerances": TOLERANCES,
        "peers": _versions(),
    }
    result = record(
        rows,
        unit="views_per_s",
        config=config,
        ratios=compared,
        device=where,
        left_out=left_out,
        details=details,
    )
    result["copy"] = {"gb_per_s": copy.rate / 1e9, "rounds": copy.rounds}
    result["emission"] = _emission(cases, rounds * seconds)
    _show(result)
    if json is not None:
        write_json(json, result)
    if plot is not None:
        from .chart import draw

        draw(result, plot)


def peer_cases(device: torch.device, size: int, batch: int, source: Path | None, quick: bool) -> list[Case]:
    """The cases of the benchmark: the main one and its variants, each with its contestants' work."""
    images = natural_photos(batch) if source is None else photos_of(source, batch)
    main = Work(images, size, 2, ViewPolicy.moco_v2(size), device)
    one_view = replace(main, views=1)
    if device.type == "cpu":
        return [Case("", main, peers.ON_CPU, True), Case(", 1 view", one_view, {} if quick else peers.ON_CPU)]
    small = min(32, batch)
    few = [resized(image, (size * 8 // 7,) * 2) for image in images[:64]]
    # The operations of triton-augment: a crop of 224 from 256, jitter without hue and always on, no blur.
    fraction = (size / len(few[0])) ** 2
    policy = ViewPolicy(size, (fraction, fraction), (1, 1), hue=0, jitter=1, blur=0)
    return [
        Case("", main, peers.ON_CUDA, True),
        Case(f", batch {small}", main.of(small), peers.ON_CUDA),
        Case(", 1 view", one_view, {} if quick else peers.ON_CUDA),
        Case(", bfloat16", replace(main, dtype=torch.bfloat16), {}),
        Case(
            f", bfloat16, batch {small}",
            replace(main.of(small), dtype=torch.bfloat16),
            {"fastaugself-triton-graph": ours.graphed},
        ),
        Case(", no resize", Work(few, size, 1, policy, device), peers.WITHOUT_RESIZE, True),
    ]


def _ours(device: torch.device) -> str:
    return "fastaugself-triton" if device.type == "cuda" else "fastaugself-numba"


def _ready(
    cases: Sequence[Case], skipped: Mapping[str, str], limit: float, end: float, compared: int
) -> tuple[list[Contestant], dict[str, Record], list[LeftOut]]:
    """The contestants that pass their check, details of each by name, and those left out."""
    contestants: list[Contestant] = []
    details: dict[str, Record] = {}
    left_out: list[LeftOut] = []
    for case in cases:
        error = ours.check_fused(case.work)
        fused = ours.fused(case.work)
        expected = statistics(some_views(fused, 4 * compared)) if case.checked else None
        failed = {peer.name for peer in left_out}
        entrants: list[tuple[str, Ready | LeftOut, Record]] = [(_ours(case.work.device), fused, {"max_error": error})]
        for name, make in case.makers.items():
            if name in failed:
                continue
            if name in skipped:
                left_out.append(LeftOut(name, skipped[name]))
                continue
            seconds = min(limit, end - time.monotonic())
            if seconds <= 0:
                left_out.append(LeftOut(name + case.suffix, "no time left"))
                continue
            check: Record = {}
            entrants.append(
                (name, attempt(name, partial(_set_up, make, case.work, expected, check, compared, seconds)), check)
            )
        for name, ready, check in entrants:
            if isinstance(ready, LeftOut):
                left_out.append(LeftOut(name + case.suffix if name in details else name, ready.reason))
                continue
            full = name + case.suffix
            contestants.append(Contestant(full, ready.call, ready.units))
            details[full] = _details(case, ready) | {"check": check}
    return contestants, details, left_out


def _details(case: Case, ready: Ready) -> Record:
    counted = attempt("", partial(launches, ready.call, case.work.device))
    return {
        "case": case.suffix,
        "batch": case.work.batch,
        "views": case.work.views,
        "views_per_call": ready.units,
        "bytes_per_view": case.work.bytes_per_view(),
        "launches": None if isinstance(counted, LeftOut) else counted,
    }


def _set_up(
    make: Maker, work: Work, expected: dict[str, Any] | None, check: Record, compared: int, limit: float
) -> Ready:
    """Sets up a contestant and checks `compared` of its views; the statistics are added to `check`."""
    random.seed(0)
    torch.manual_seed(0)
    with deadline(limit):
        ready = make(work)
        if ready.error is not None:
            check["mean_error"] = ready.error
        views = ready.call()
        if views.shape != (ready.units, 3, work.size, work.size):
            raise ValueError(f"its views are {list(views.shape)}")
        if expected is not None and ready.error is None:
            check |= differences(statistics(some_views(ready, compared)), expected)
            wrong = [f"{name} by {check[name]:.2f}" for name, allowed in TOLERANCES.items() if check[name] > allowed]
            if wrong:
                raise ValueError(f"its views differ from ours: {', '.join(wrong)}")
    return ready


def _speed(row: Row, copy: Row, known: Record) -> Record:
    """Bandwidth in GB/s if every byte moves once, and its percentage of the copy's in the same round."""
    moved = [rate * known["bytes_per_view"] for rate in row.rounds]
    percent = [100 * a / b for a, b in zip(moved, copy.rounds, strict=True)]
    return {
        "gb_per_s": row.rate * known["bytes_per_view"] / 1e9,
        "percent_of_copy": median_and_range(percent)["median"],
    }


EMISSIONS: dict[str, ours.Emission] = {
    "AugSelf's targets": "targets",
    "targets, CASSLE's descriptors, colour shift": "descriptors",
}


def _emission(cases: Sequence[Case], seconds: float) -> list[Record]:
    """Additional time for targets and descriptors, in percent of the time without them."""
    found = []
    for case in cases:
        if case.work.views < 2 or case.suffix.startswith(", no"):
            continue
        base = ours.fused(case.work)
        for name, emit in EMISSIONS.items():
            other = ours.fused(case.work, emit)
            for ready in (base, other):
                ready.call()
            calls = 8 if case.work.device.type == "cuda" else 1
            times = paired(base.call, other.call, device=case.work.device, seconds=seconds, calls=calls)
            low, median, high = (100 * (t - 1) for t in quantiles(times, n=4))
            percent = {"median": median, "quartiles": [low, high]}
            found.append({"name": name, "case": case.suffix, "percent": percent, "pairs": len(times)})
    return found


def _versions() -> dict[str, str]:
    """Versions of the installed peers."""
    found = {}
    for name in peers.DISTRIBUTIONS.values():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _show(result: Record) -> None:
    console = Console()
    for table in (augment_table(result), emission_table(result)):
        shown = RichTable(*table.head)
        for cells in table.rows:
            shown.add_row(*map(escape, cells))
        console.print(shown)
