"""Views per second of MoCo v2's augmentation, next to what people use today.

Every contestant makes 224 px views of the same real photos of 375 x 500 with random resized crop (antialiased where
the library can), flip, colour jitter, grayscale, blur and normalisation at MoCo v2's ranges and probabilities,
parameters drawn anew for every view. Before the timing, ours and the oracle's other forms are held to the oracle, and
each peer's views to the statistics of ours; who does not pass is not timed. Then all take turns in one run.
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
    paired,
    ratios,
    record,
    spread,
    write_json,
)
from .limits import COPY, copy_contestant, launches
from .tables.augment import augment_table, emission_table
from .work import PHOTO, Maker, Ready, Work, natural_photos, photos_of, resized


@dataclass(frozen=True)
class Case:
    """One way to work and who takes part in it. suffix: of the rows' names; the main case has none."""

    suffix: str
    work: Work
    makers: Mapping[str, Maker]
    checked: bool = False  # whether the peers' views are compared here; else it was done in an earlier case


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
        json: File for the result.
        plot: PNG file for a picture of it.
        size: Side of the views in pixels.
        photos: Photos in a batch (64 on a CPU, or 32 with --quick; 512 on a GPU).
        rounds: Rounds in which the contestants take turns.
        seconds: Seconds of each contestant in a round.
        device: cpu (one thread), cuda, or auto for CUDA where there is one.
        source: A .beton file with the photos to use, resized to 375 x 500, instead of those of scikit-image.
        quick: Fewer rounds and views to check, and without what takes long: less than a minute, and 15 s more the
            first time, when the kernels are compiled.
        without: Names of contestants to leave out.
        limit: Seconds that setting a contestant up and checking it may take.
        patience: Seconds for setting all of them up; whose turn comes later is left out.
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
    cases = _cases(where, size, batch, source, quick)
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


def _cases(device: torch.device, size: int, batch: int, source: Path | None, quick: bool) -> list[Case]:
    images = natural_photos(batch) if source is None else photos_of(source, batch)
    main = Work(images, size, 2, ViewPolicy.moco_v2(size), device)
    one_view = replace(main, views=1)
    if device.type == "cpu":
        return [Case("", main, peers.ON_CPU, True), Case(", 1 view", one_view, {} if quick else peers.ON_CPU)]
    small = min(32, batch)
    few = [resized(image, (size * 8 // 7,) * 2) for image in images[:64]]
    # Its operations: a crop of 224 from 256, jitter without hue and always on, no blur.
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
    """Every contestant of every case that passes its check, what is known of each, and who is left out."""
    contestants: list[Contestant] = []
    details: dict[str, Record] = {}
    left_out: list[LeftOut] = []
    for case in cases:
        error = ours.check_fused(case.work)
        own = ours.fused(case.work)
        expected = statistics(some_views(own, 4 * compared)) if case.checked else None
        gone = {peer.name for peer in left_out}
        entrants: list[tuple[str, Ready | LeftOut, Record]] = [(_ours(case.work.device), own, {"max_error": error})]
        for name, make in case.makers.items():
            if name in gone:
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
    """A contestant that has made its first views and passed its check of `compared` views, which goes to `check`."""
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
    """The bytes a second that have to move for these views, and their share of the copy in the same round."""
    moved = [rate * known["bytes_per_view"] for rate in row.rounds]
    share = [100 * a / b for a, b in zip(moved, copy.rounds, strict=True)]
    return {"gb_per_s": row.rate * known["bytes_per_view"] / 1e9, "percent_of_copy": spread(share)["median"]}


EMISSIONS: dict[str, ours.Emission] = {
    "AugSelf's targets": "targets",
    "targets, CASSLE's descriptors, colour shift": "descriptors",
}


def _emission(cases: Sequence[Case], seconds: float) -> list[Record]:
    """What it costs to have targets and descriptors as well, in percent of the time without them.

    The parameters themselves cost nothing to have: they are what the views are made from.
    """
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
    """Versions of the peers that are installed."""
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
