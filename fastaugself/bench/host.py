"""Host time and collectives of a training step, for methods and numbers of processes, without a GPU.

A GPU waits for the host wherever a step's kernels take less time than launching them. Here the kernels take next to no
time: the networks of the run have a sixteenth of their width and images of 32 px, so that a step has every operation of
the full one and its processor time is that of Python, the dispatcher and small kernels: an upper bound on the host time
of a step on a GPU, eager unless it is compiled. Other ranks are PyTorch's fake process group, whose collectives return
at once: what a collective costs the host is counted, the network is not.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from fastaugself_kernels import ViewPolicy

from ..aware.augself import AugSelf
from ..config.schema import Pretrain
from ..methods import BYOL, BarlowTwins, MoCo, MoCoV3, SimCLR, SimSiam, SwAV
from ..methods.base import MethodConfig
from ..models.build import Backbone
from .harness import check_outputs, record, write_json
from .setup import inputs, noise_batch, train_step

CPU = torch.device("cpu")
WIDTH, SIZE, BATCH = 4, 32, 4
ROWS: dict[str, tuple[MethodConfig, Literal["plain", "sync"]]] = {
    "MoCo v2, sync": (MoCo(queue=64, dim=16), "sync"),
    "MoCo v2, plain, shuffle": (MoCo(queue=64, dim=16, shuffle=True), "plain"),
    "MoCo v3, sync": (MoCoV3(dim=16, hidden=64), "sync"),
    "SimSiam, sync": (SimSiam(dim=64, predictor_hidden=16), "sync"),
    "SimCLR, sync": (SimCLR(dim=16), "sync"),
    "BYOL, sync": (BYOL(dim=16, hidden=64, predictor_hidden=64), "sync"),
    "SwAV, sync": (SwAV(dim=16, hidden=64, prototypes=12, freeze_steps=1), "sync"),
    "Barlow Twins, sync": (BarlowTwins(dim=64), "sync"),
}


@dataclass(frozen=True)
class HostRow:
    """name: method and batch norm. processes: of the run. milliseconds: processor time of every timed step.
    collectives: of one step by kind; buckets: of DDP's gradients."""

    name: str
    processes: int
    milliseconds: list[float]
    collectives: dict[str, int]
    buckets: int


def host_benchmark(
    json: Path | None = None, rounds: int = 7, backbone: str = "resnet50", processes: int = 8, compile: bool = False
) -> None:
    """Processor time and collectives of a step on the host, per method, on one and on several processes.

    Args:
        json: Write the result to this file.
        rounds: Number of rounds; in each, every row makes one step.
        backbone: Name of the ResNet.
        processes: Number of processes besides one.
        compile: Compile the steps, which takes a minute each.
    """
    check_outputs(json)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = _rows(backbone, 1, rounds=rounds, compiled=compile)
        rows += _rows(backbone, processes, rounds=rounds, compiled=compile)
    finally:
        torch.set_num_threads(threads)
    show(rows)
    if json is not None:
        values = record([], unit="", config={}, ratios={}, device=CPU)
        values["config"] = {"backbone": backbone, "width": WIDTH, "size": SIZE, "batch": BATCH, "threads": 1}
        values["config"] |= {"rounds": rounds, "compile": compile}
        write_json(json, values | {"rows": [vars(row) for row in rows]})


def _rows(backbone: str, processes: int, *, rounds: int, compiled: bool) -> list[HostRow]:
    with fake_processes(processes):
        steps = {
            name: _step(method, norm, backbone, processes, compiled=compiled) for name, (method, norm) in ROWS.items()
        }
        counted = {name: _collectives(*step) for name, step in steps.items()}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, (run, _) in steps.items():
                began = time.process_time()
                run()
                seconds[name].append(time.process_time() - began)
    return [
        HostRow(name, processes, [round(1e3 * s, 2) for s in values], *counted[name])
        for name, values in seconds.items()
    ]


def _step(
    method: MethodConfig, norm: Literal["plain", "sync"], backbone: str, processes: int, *, compiled: bool
) -> tuple[Callable[[], Any], list[int]]:
    """A function that makes a step, and a list to which each of DDP's buckets of gradients adds its size."""
    config = Pretrain(
        view=ViewPolicy.moco_v2(SIZE),
        backbone=Backbone(name=backbone, width=WIDTH, batch_norm=norm),
        method=method,  # type: ignore[arg-type]
        augself=AugSelf(crop=0.5, color=0.5, hidden=16),
        batch_size=BATCH,
    )
    step = train_step(config, CPU, processes=processes, compile=compiled, batched_views=compiled)
    sizes: list[int] = []

    def reduce(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
        sizes.append(bucket.buffer().numel())
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    if processes > 1:  # the fake process group has no result for DDP's own all-reduce
        step.model.register_comm_hook(None, reduce)  # type: ignore[operator]
    views = inputs(config, noise_batch(config, CPU), torch.float32)
    return (lambda: step(views, global_step=0, progress=0.0)), sizes


def _collectives(run: Callable[[], Any], sizes: list[int]) -> tuple[dict[str, int], int]:
    """Collectives of one step by kind, and DDP's buckets, after two steps: DDP arranges its buckets in the first."""
    for _ in range(2):
        run()
    sizes.clear()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    names = Counter(event.name for event in profiled.events() if event.name.startswith("c10d::"))
    kinds = {"gather": 0, "reduce": 0}
    for name, count in names.items():
        kinds["gather" if "gather" in name else "reduce"] += count
    return kinds, len(sizes)


@contextmanager
def fake_processes(count: int) -> Iterator[None]:
    """While entered, this process is rank 0 of `count`; collectives return at once, with nothing from other ranks."""
    if count == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def show(rows: list[HostRow]) -> None:
    """Prints the rows."""
    table = Table("", "processes", "host ms", "from", "to", "gathers", "reductions", "buckets")
    table.columns[0].no_wrap = True
    for row in rows:
        ordered = sorted(row.milliseconds)
        times = [f"{value:.1f}" for value in (ordered[len(ordered) // 2], ordered[0], ordered[-1])]
        counts = [str(count) for count in (*row.collectives.values(), row.buckets)]
        table.add_row(row.name, str(row.processes), *times, *counts)
    Console().print(table)
