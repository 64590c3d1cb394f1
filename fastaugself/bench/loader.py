"""Photos per second from a .beton file to two views, compared with FFCV, FFCV-SSL's design and PyTorch's DataLoader.

All read the same photos. Before the timing, decoded photos are compared bit by bit and views by their statistics; a
contestant that computes something else is not timed. Then all take turns, each in a separate process that may use one
core per worker. A rate per core counts the processor time of all threads and worker processes.
"""

import contextlib
import importlib.metadata
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from ..data.cores import available_cores
from ..errors import RunError
from .harness import LeftOut, Record, Row, attempt, check_outputs, median_and_range, record, write_json
from .loader_peers import CONTESTANTS, Task, build
from .loader_photos import Storage, write_beton
from .remote import Remote, Round
from .tables.loader import loader_table

TOLERANCES = {
    "oracle_error": 1e-5,  # of views in [0, 1], against the PyTorch reference
    "pillow_error": 2.0,  # of 255, mean over a photo: Pillow has libjpeg's slow DCT
    "mean": 0.15,  # of a channel of the normalised views
    "std": 0.15,
    "gray": 0.12,  # fraction of views without colour; the standard error of a difference is 0.035
    "detail": 0.25,  # as a fraction
}
OURS = {"decode": "fastaugself-ffcv, decoded", "views": "fastaugself-ffcv"}
WITHOUT_FFCV = {"decode": "fastaugself-native, decoded", "views": "fastaugself-native"}
# Ratios by name: (our job, the peer).
RATIOS = {
    "decode_vs_ffcv_twice": ("decode", "ffcv-twice"),
    "decode_vs_ffcv_twice_with_crops": ("decode", "ffcv-twice, its crops"),
    "views_vs_ffcv_ssl": ("views", "ffcv-ssl design"),
    "views_vs_dataloader_pil": ("views", "dataloader-pil"),
    "views_vs_dataloader_albumentationsx": ("views", "dataloader-albumentationsx"),
}


class Entry(NamedTuple):
    """A row: name of the contestant, storage of the photos, number of workers (and cores)."""

    name: str
    storage: Storage
    workers: int

    def __str__(self) -> str:
        return f"{self.name}, {self.storage}, {self.workers} worker{'s' * (self.workers > 1)}"


def loader_benchmark(
    source: Positional[Path | None] = None,
    json: Path | None = None,
    plot: Path | None = None,
    photos: int = 512,
    batch: int = 64,
    size: int = 224,
    workers: tuple[int, ...] = (),
    storage: tuple[Storage, ...] = ("jpeg", "raw"),
    rounds: int = 5,
    seconds: float = 0.8,
    quick: bool = False,
    without: tuple[str, ...] = (),
) -> None:
    """Photos per second from a .beton file to two views, compared with other loaders.

    Args:
        source: A folder of photos or a .beton file; default: crops of scikit-image's photos.
        json: Write the result to this file.
        plot: Write a bar chart to this image file.
        photos: Number of photos, evenly spaced over the source.
        batch: Batch size.
        size: Size of the views in pixels.
        workers: Numbers of workers to measure, one core each (default: 1, and all cores).
        storage: How the photos are stored.
        rounds: Number of rounds after a warm-up round; in each, every contestant runs once.
        seconds: Seconds per contestant and round.
        quick: JPEG only, fewer photos and rounds; FFCV still compiles for about 20 s per row.
        without: Names of contestants to skip.
    """
    check_outputs(json, plot)
    if quick:
        photos, rounds, seconds, storage = min(photos, 128), min(rounds, 3), min(seconds, 0.3), storage[:1]
    counts = workers or tuple(sorted({1, available_cores()}))
    console = Console()
    rows: list[Row] = []
    details: dict[str, Record] = {}
    left_out: list[LeftOut] = []
    with tempfile.TemporaryDirectory(prefix="fastaugself-bench-") as folder:
        files, described = write_beton(source, Path(folder), photos, batch, storage)
        for stored in storage:
            task = Task(files[stored], described["photos"], batch, size, 1)
            wanted = [entry for entry in _entries(stored, counts, quick) if entry.name not in without]
            with ExitStack() as stack:
                racing = _start(wanted, task, stack, left_out)
                results = _race(racing, rounds, seconds, left_out)
                for entry, taken in results.items():
                    rows.append(Row(str(entry), [r.samples / r.wall for r in taken]))
                    details[str(entry)] = _details(entry, taken, racing[entry], described[f"{stored}_bytes"])
    config = described | {
        "batch": batch, "size": size, "rounds": rounds, "seconds": seconds, "workers": list(counts),
        "threads": max(counts), "tolerances": TOLERANCES, "peers": _versions(),
    }  # fmt: skip
    result = record(
        rows,
        unit="samples_per_s",
        config=config,
        ratios=compare(details),
        device=torch.device("cpu"),
        left_out=left_out,
        details=details,
    )
    _show(result, console)
    if json is not None:
        write_json(json, result)
    if plot is not None:
        from .loader_chart import draw

        draw(result, plot)


# --- contestants ------------------------------------------------------------------------------------------------------


def _entries(storage: Storage, workers: Sequence[int], quick: bool) -> list[Entry]:
    """The rows to measure. FFCV compiles for up to 20 s per row, so not every contestant runs in every setting."""
    few, *more = workers
    rows = [Entry(name, storage, few) for name in CONTESTANTS]
    if storage == "jpeg":
        rows += [Entry(name, storage, n) for n in more for name in (WITHOUT_FFCV.values() if quick else CONTESTANTS)]
    return rows


def _start(wanted: Sequence[Entry], task: Task, stack: ExitStack, left_out: list[LeftOut]) -> dict[Entry, Remote]:
    """Starts the contestants; returns those that can be built and pass their check."""
    started: dict[Entry, Remote] = {}
    ready: dict[Entry, Remote] = {}
    for some in _chunks(wanted, available_cores() + 1):  # in groups, to save memory
        for entry in some:
            arguments = (entry.name, replace(task, workers=entry.workers))
            started[entry] = Remote(build, arguments, entry.workers)
            stack.callback(started[entry].close)
        for entry in some:
            outcome = attempt(str(entry), started[entry].wait)
            if isinstance(outcome, LeftOut):
                left_out.append(outcome)
            else:
                ready[entry] = started[entry]

    def end_all() -> None:  # before waiting for any of them
        for remote in started.values():
            remote.end()

    stack.callback(end_all)
    return check_contestants(ready, left_out)


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def check_contestants(ready: dict[Entry, Remote], left_out: list[LeftOut]) -> dict[Entry, Remote]:
    """The contestants whose photos and views are correct; ours are compared with the oracle and with Pillow."""
    found: dict[Entry, Record] = {}
    for remote in ready.values():
        remote.start_check()
    for entry, remote in ready.items():
        outcome = attempt(str(entry), remote.checked)
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
        else:
            found[entry] = outcome
    fewest = min((entry.workers for entry in found), default=1)
    native = {
        job: next((check for entry, check in found.items() if (entry.name, entry.workers) == (name, fewest)), None)
        for job, name in WITHOUT_FFCV.items()
    }
    if native["decode"] is None or native["views"] is None:
        reasons = "; ".join(f"{peer.name}: {peer.reason}" for peer in left_out)
        raise RunError(
            f"fastaugself's native reader did not run, and all are compared with it ({reasons or 'it was skipped'})"
        )
    passed = {}
    for entry, check in found.items():
        fault = difference(entry.name, check, native["decode"], native["views"])
        if fault and entry.name.startswith("fastaugself"):
            raise RunError(f"{entry}: {fault}; nothing is timed")
        if fault:
            left_out.append(LeftOut(str(entry), fault))
        else:
            passed[entry] = ready[entry]
    return passed


def difference(name: str, check: Record, decoded: Record, views: Record) -> str | None:
    """How a contestant's photos (by checksum) or views (by their statistics) differ from ours; None if they do not."""
    job, _ = CONTESTANTS[name]
    for key in ("oracle_error", "pillow_error"):
        if check.get(key, 0.0) > TOLERANCES[key]:
            return f"{key.replace('_', ' ')} is {check[key]:.2g}, more than {TOLERANCES[key]:g}"
    if job == "decode":
        for sample, expected in decoded["crc32"].items():
            if set(check["crc32"].get(sample, [None])) != set(expected):
                return f"photo {sample} has different pixels than ours"
        return None
    if "crc32" in check and check["crc32"] != views["crc32"]:
        return "its views differ from those of the other reader"
    expected = decoded["crops"] if job == "crops" else views
    if tuple(check["shape"]) != tuple(expected["shape"]) or check["count"] != expected["count"]:
        return (
            f"it makes {check['count']} views of {check['shape']}, expected {expected['count']} of {expected['shape']}"
        )
    measured = {key: float(np.abs(np.subtract(check[key], expected[key])).max()) for key in ("mean", "std", "gray")}
    measured["detail"] = abs(check["detail"] / expected["detail"] - 1)
    for key, value in measured.items():
        if value > TOLERANCES[key]:
            return f"{key} of its views differs from ours by {value:.2f}, more than {TOLERANCES[key]:g}"
    return None


# --- results ----------------------------------------------------------------------------------------------------------


def _race(
    racing: dict[Entry, Remote], rounds: int, seconds: float, left_out: list[LeftOut]
) -> dict[Entry, list[Round]]:
    results: dict[Entry, list[Round]] = {entry: [] for entry in racing}
    order = list(racing)
    for round_ in range(-1, rounds):
        shift = round_ % max(1, len(order))  # nobody always follows the same neighbour
        for entry in (*order[shift:], *order[:shift]):
            if entry not in results:
                continue
            taken = attempt(str(entry), partial(racing[entry].round, seconds))
            if isinstance(taken, LeftOut):
                left_out.append(taken)
                del results[entry]
            elif round_ >= 0:  # the first round is a warm-up
                results[entry].append(taken)
    return results


def _details(entry: Entry, taken: Sequence[Round], remote: Remote, bytes_per_photo: float) -> Record:
    per_core = [r.samples / r.cpu for r in taken]
    memory = attempt(str(entry), remote.memory)
    return {
        "contestant": entry.name,
        "job": CONTESTANTS[entry.name][0],
        "storage": entry.storage,
        "workers": entry.workers,
        "samples_per_s_per_core": statistics.median(per_core),
        "mb_per_s": statistics.median(r.samples / r.wall for r in taken) * bytes_per_photo / 1e6,
        "memory_mb": None if isinstance(memory, LeftOut) else memory / 1e6,
        "rounds_per_core": per_core,
        "wall_rounds": [r.samples / r.wall for r in taken],
    }


def compare(details: dict[str, Record]) -> dict[str, Record]:
    """The ratios of RATIOS per core with one worker (raw storage: prefix `raw_`), and `second_core_*`.

    `second_core_*`: speed-up in wall time of two workers on two cores over one worker on one core.
    """
    by_entry = {Entry(row["contestant"], row["storage"], row["workers"]): row for row in details.values()}
    found: dict[str, Record] = {}
    prefixes: dict[Storage, str] = {"jpeg": "", "raw": "raw_"}
    for storage, prefix in prefixes.items():
        for name, (job, other) in RATIOS.items():
            ours = by_entry.get(Entry(OURS[job], storage, 1)) or by_entry.get(Entry(WITHOUT_FFCV[job], storage, 1))
            theirs = by_entry.get(Entry(other, storage, 1))
            if ours and theirs:
                found[prefix + name] = _ratio(ours, theirs, "rounds_per_core")
        for job in OURS:
            for name in (OURS[job], WITHOUT_FFCV[job]):
                one, two = (by_entry.get(Entry(name, storage, n)) for n in (1, 2))
                if one and two:
                    found[f"{prefix}second_core_{job}"] = _ratio(two, one, "wall_rounds")
                    break
    return found


def _ratio(ours: Record, theirs: Record, rounds: str) -> Record:
    values = [a / b for a, b in zip(ours[rounds], theirs[rounds], strict=True)]
    return {"ours": ours["contestant"], "other": theirs["contestant"], **median_and_range(values)}


def _versions() -> dict[str, str]:
    """Versions of the installed peers."""
    found = {}
    for name in ("FFCV", "pillow", "opencv-python-headless", "albumentationsx"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name.lower())
    return found


def _show(result: Record, console: Console) -> None:
    photos = result["config"]
    title = f"{photos['photos']} photos of {photos['pixels'] / 1e3:,.0f} thousand pixels on average"
    measured = loader_table(result)
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, heading in enumerate(measured.head):
        table.add_column(heading, overflow="fold", min_width=5, justify="left" if i < 3 else "right")
    for cells in measured.rows[: len(result["rows"])]:
        table.add_row(*cells)
    console.print(table)
    ratios = Table("ours is faster by", "median", "lowest", "highest")
    for name, ratio in result["ratios"].items():
        ratios.add_row(name, *(f"{ratio[key]:.2f}x" for key in ("median", "min", "max")))
    console.print(ratios)
    for peer in result["left_out"]:
        console.print(f"{peer['name']}: left out, {peer['reason']}", markup=False)
