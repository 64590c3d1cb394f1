"""Whole training, from a `.beton` file to the optimizer step, compared with the same steps on ready views.

The difference is the cost of reading, decoding, copying and augmenting.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..config.schema import Data, Log
from ..data.demo import write_demo
from ..data.inputs.convert import ensure_beton
from ..distributed import World
from ..errors import UsageError
from ..training.setup import backend_settings
from ..training.trainer import Trainer
from .harness import Row, check_outputs, record, write_json
from .setup import FlatSetup, settings


def e2e_benchmark(
    setup: FlatSetup,
    source: Path | None = None,
    json: Path | None = None,
    steps: int = 0,
    rounds: int = 5,
    cudnn_benchmark: bool = False,
) -> None:
    """Pairs of views per second of whole training, the data wait, and the device's idle time.

    Args:
        setup: Method, model and device.
        source: A .beton file or a folder of photos; default: the photos of the demo.
        json: Write the result to this file.
        steps: Steps per round; 0 = 60 on CUDA and 8 on a CPU.
        rounds: Number of rounds.
        cudnn_benchmark: Let cuDNN measure its algorithms, as --cudnn-benchmark does in training. They stay chosen for
            the whole process: compare two of them.
    """
    check_outputs(json)
    where, config = setup.where, dataclasses.replace(setup.config(), cudnn_benchmark=cudnn_benchmark)
    steps = steps or (60 if where.type == "cuda" else 8)
    with tempfile.TemporaryDirectory() as folder:
        photos = _photos(source, Path(folder), config.batch_size)
        needed = (2 * rounds + 3) * steps
        config = dataclasses.replace(
            config, data=Data(train=photos), log=Log(every=10**9, tensorboard=False), run=Path(folder) / "run",
            epochs=10**6,
        )  # fmt: skip
        trainer = Trainer(dataclasses.replace(config, max_steps=needed), World.single(where))
        try:
            with backend_settings(config, where):
                whole, ready, waits, idle = _measure(trainer, steps, rounds)
        finally:
            trainer.close()
    rows = [Row("training", whole), Row("steps on ready views", ready)]
    ratio = [a / b for a, b in zip(whole, ready, strict=True)]
    kept = {"median": statistics.median(ratio), "min": min(ratio), "max": max(ratio)}
    table = Table("", "pairs/s", "relative to ready views")
    table.add_row("training", f"{rows[0].rate:,.1f}", f"{kept['median']:.1%}")
    table.add_row("steps on ready views", f"{rows[1].rate:,.1f}", "")
    console = Console()
    console.print(table)
    console.print(f"data wait {statistics.median(waits):.1%}" + ("" if idle is None else f", device idle {idle:.1%}"))
    if json is not None:
        described = {**settings(config, rounds, 0.0), "steps": steps, "source": trainer.loader.source}
        described["cudnn_benchmark"] = cudnn_benchmark
        ratios: dict[str, Any] = {"training_vs_ready_views": kept}
        values = record(rows, unit="samples_per_s", config=described, ratios=ratios, device=where)
        values["data_wait"] = statistics.median(waits)
        values["device_idle"] = idle
        write_json(json, values)


def _photos(source: Path | None, folder: Path, batch: int) -> Path:
    if source is not None:
        if not source.exists():
            raise UsageError(f"--source {source} does not exist; pass a .beton file or a folder of photos")
        return ensure_beton(source)
    return write_demo(folder / "demo.beton", count=max(256, 4 * batch))


def _measure(trainer: Trainer, steps: int, rounds: int) -> tuple[list[float], list[float], list[float], float | None]:
    """By round: rates of whole training and of ready views, fraction of data wait; and the fraction of idle time."""
    size, device = trainer.config.batch_size, trainer.device
    batches = trainer.batches()
    whole, ready, waits = [], [], []
    batch = next(batches)
    trainer.train_step(batch)

    def training() -> float:
        waited = 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            fresh = next(batches)
            waited += time.perf_counter() - asked
            trainer.train_step(fresh)
        return waited

    def on_ready_views() -> None:
        for _ in range(steps):
            trainer.step_fn(batch.views, global_step=trainer.global_step, progress=0.0)

    try:
        training()  # warm-up
        for _ in range(rounds):
            seconds, waited = _timed(training, device)
            whole.append(steps * size / seconds)
            waits.append(waited / seconds)
            ready.append(steps * size / _timed(on_ready_views, device)[0])
        idle = _idle(training, device) if device.type == "cuda" else None
    finally:
        batches.close()
    return whole, ready, waits, idle


def _timed(work: Any, device: torch.device) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, result


def _idle(work: Any, device: torch.device) -> float:
    """Fraction of the time without a running kernel, from the profiler's intervals."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize(device)
    return 1 - busy_fraction(kernel_intervals(profile.events() or ()))


def kernel_intervals(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Start and end of every kernel of a CUDA device among profiled events, without copies and fills of memory."""
    return [
        (e.time_range.start, e.time_range.end)
        for e in events
        if e.device_type.name == "CUDA" and not e.name.startswith(("Memcpy", "Memset"))
    ]


def busy_fraction(intervals: list[tuple[float, float]]) -> float:
    """The fraction of the time between the first start and the last end that is covered by an interval."""
    if not intervals:
        return 0.0
    ordered = sorted(intervals)
    first, covered, end = ordered[0][0], 0.0, ordered[0][0]
    for low, high in ordered:
        covered += max(0.0, high - max(low, end))
        end = max(end, high)
    return covered / (end - first) if end > first else 0.0
