"""`fastaugself bench disk`: read speed of each sample order from a disk, and the cost of opening many samples."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from tyro.conf import Positional

from ..data.beton.format import ALLOCATION, FIELD, HEADER, TYPE_IMAGE, TYPE_INT, VERSION, metadata_type
from ..data.dataset import Dataset
from ..data.loader import Loader
from ..data.order import Order
from ..environment import environment
from .harness import Record, check_outputs, write_json

ORDERS: tuple[Order, ...] = ("random", "quasi-random", "sequential")
_STORED = 1000  # bytes of a sample in a hollow file


def disk_benchmark(
    paths: Positional[tuple[Path, ...]] = (),
    batch_size: int = 256,
    batches: int = 40,
    workers: int = 0,
    rounds: int = 3,
    open_samples: int = 0,
    open_files: tuple[int, ...] = (1, 100),
    json: Path | None = None,
) -> None:
    """Measure reading `.beton` files in each order, uncached from disk, and opening files with many samples.

    Args:
        paths: Files or a pattern, with more than --batches times --batch-size samples, on the disk to measure.
        batch_size: Samples per batch.
        batches: Batches per round.
        workers: Decoding threads; 0 = one per core.
        rounds: Number of rounds; in each, every order runs once.
        open_samples: Also measure opening sparse files with this many samples.
        open_files: Numbers of files to divide them into, one measurement each.
        json: Write the result to this file.
    """
    check_outputs(json)
    rows: list[Record] = []
    if paths:
        rows += reading(paths, batch_size=batch_size, batches=batches, workers=workers, rounds=rounds)
    if open_samples:
        rows += [opening(open_samples, files, rounds=rounds) for files in open_files]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items() if key != "rounds"))
    if json is not None:
        config = {"batch_size": batch_size, "batches": batches, "workers": workers, "rounds": rounds}
        write_json(
            json,
            {"environment": environment(torch.device("cpu")), "config": config, "rows": rows, "ratios": ratios(rows)},
        )


def ratios(rows: list[Record]) -> dict[str, float]:
    """Samples per second of each order, relative to the random order."""
    rates = {row["name"]: row["samples_per_s"] for row in rows if row["name"] in ORDERS}
    return {
        f"{name.replace('-', '_')}_vs_random": round(rate / rates["random"], 3)
        for name, rate in rates.items()
        if name != "random"
    }


def reading(paths: tuple[Path, ...], *, batch_size: int, batches: int, workers: int, rounds: int) -> list[Record]:
    """Samples and megabytes per second of each order, in wall time, with the files evicted from the page cache."""
    rates: dict[Order, list[float]] = {order: [] for order in ORDERS}
    with Dataset(paths) as data:
        stored = float(np.concatenate([shard.bytes_N for shard in data.shards]).mean())
        for round_ in range(rounds):
            for order in ORDERS:
                _evict(data)
                rates[order].append(_rate(paths, order, round_, batch_size, batches, workers))
    return [
        {
            "name": order,
            "samples_per_s": round(statistics.median(values), 1),
            "mb_per_s": round(statistics.median(values) * stored / 1e6, 1),
            "rounds": values,
        }
        for order, values in rates.items()
    ]


def _rate(paths: tuple[Path, ...], order: Order, epoch: int, batch_size: int, batches: int, workers: int) -> float:
    with Loader(paths, batch_size=batch_size, order=order, workers=workers, source="native") as loader:
        began, seen = time.perf_counter(), 0
        with closing(loader.epoch(epoch)) as decoded:
            for batch, _ in zip(decoded, range(batches), strict=False):
                seen += len(batch.ids_B)
        return seen / (time.perf_counter() - began)


def _evict(data: Dataset) -> None:
    """Evicts the files from the operating system's page cache."""
    for shard in data.shards:
        os.posix_fadvise(shard.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opening(samples: int, files: int, *, rounds: int) -> Record:
    """Time and memory of a process that opens `samples` samples in `files` files; medians over the rounds."""
    folder = Path(tempfile.mkdtemp(prefix="fastaugself-open-"))
    try:
        for i in range(files):
            write_hollow(folder / f"{i:05d}.beton", samples * (i + 1) // files - samples * i // files)
        code = _OPEN.format(pattern=str(folder / "*.beton"))
        measured = []
        for _ in range(rounds):
            done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    middle = {key: round(statistics.median(m[key] for m in measured), 3) for key in measured[0]}
    rates = [samples / m["seconds"] for m in measured]
    return {"name": f"open-{files}-files", "samples_per_s": round(statistics.median(rates)), **middle, "rounds": rates}


_OPEN = """
import json, resource, threading, time
from fastaugself.data.loader import Loader
import fastaugself.data.readers.native, simplejpeg

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 1e6

before, peak, done = resident(), 0.0, threading.Event()
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, resident())
watcher = threading.Thread(target=watch)
watcher.start()
began, cpu_began = time.perf_counter(), time.process_time()
loader = Loader({pattern!r}, batch_size=1, source="native")
seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
done.set()
watcher.join()
kept = resident() - before
found = {{"seconds": seconds, "cpu_seconds": cpu_seconds, "kept_mb": kept, "peak_mb": max(peak - before, kept)}}
print(json.dumps(found))
"""


def write_hollow(path: Path, samples: int) -> None:
    """Writes a sparse `.beton` file: the index of `samples` JPEGs of 375 x 500 without their bytes."""
    record = metadata_type([TYPE_IMAGE, TYPE_INT])
    header, fields = np.zeros(1, HEADER), np.zeros(2, FIELD)
    metadata, table = np.zeros(samples, record), np.zeros(samples, ALLOCATION)
    start = HEADER.itemsize + fields.nbytes + metadata.nbytes
    header[0] = (VERSION, 2, 1 << 23, samples, start + _STORED * samples)
    fields["type_id"] = [TYPE_IMAGE, TYPE_INT]
    fields["name"][:, :5] = [list(b"image"), list(b"label")]
    table["ptr"], table["size"] = start + _STORED * np.arange(samples), _STORED
    metadata["f0"]["data_ptr"], metadata["f0"]["height"], metadata["f0"]["width"] = table["ptr"], 375, 500
    with path.open("wb") as stream:
        stream.write(header.tobytes() + fields.tobytes() + metadata.tobytes())
        stream.seek(start + _STORED * samples)
        stream.write(table.tobytes())
