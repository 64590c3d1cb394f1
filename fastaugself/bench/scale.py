"""Weak scaling: a fixed local batch size on one or more processes, with plain and synchronised batch norm.

torchrun starts the processes on this machine, with NCCL on CUDA and gloo on a CPU. Each makes steps on ready views, so
that the loss of efficiency is communication and waiting. On a CPU, the number of threads per process is that of the
largest number of processes: a single process does not use the cores of the others.
"""

import dataclasses
import json as json_format
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from .. import distributed
from ..config.schema import Pretrain
from ..config.serialize import from_dict
from ..data.cores import available_cores
from ..errors import RunError, UsageError
from ..models.norm import use_native_sync
from .breakdown import breakdown, in_words
from .harness import Record, Row, check_outputs, record, write_json
from .setup import FlatSetup, Setup, inputs, noise_batch, settings, train_step

ALL_REDUCE_NOTE = (
    "all-reduce: the time that it adds to backward passes in eager steps; the communication of synchronised batch "
    "norm is part of encoders, heads and backward"
)


def scale_benchmark(
    setup: FlatSetup,
    json: Path | None = None,
    processes: tuple[int, ...] = (1, 2),
    norms: tuple[Literal["plain", "sync"], ...] = ("plain", "sync"),
    rounds: int = 3,
    seconds: float = 1.0,
) -> None:
    """Pairs of views per second on several processes, and the scaling efficiency.

    Args:
        setup: Method, model and device.
        json: Write the result to this file.
        processes: Numbers of processes to measure.
        norms: Kinds of batch norm to measure.
        rounds: Rounds per setting.
        seconds: Seconds per round.
    """
    check_outputs(json)
    where = setup.where
    cuda = where.type == "cuda"
    most = torch.cuda.device_count() if cuda else max(processes)
    if min(processes) < 1 or max(processes) > most:
        raise UsageError(f"--processes {' '.join(map(str, processes))} must be from 1 to {most}, the number of devices")
    threads = torch.get_num_threads() if cuda else max(1, available_cores() // max(processes))
    rows, details = [], {}
    for norm in norms:
        for count in processes:
            job = {"setup": dataclasses.asdict(setup.resolved()), "norm": norm, "rounds": rounds, "seconds": seconds}
            measured = _run(count, threads, job)
            row = Row(f"{count} x {norm}", measured["rates"])
            rows.append(row)
            details[row.name] = {"breakdown": measured["breakdown"]}
    kept = _efficiencies(rows)
    table = Table("processes x batch norm", "pairs/s", "efficiency")
    for row in rows:
        table.add_row(row.name, f"{row.rate:,.1f}", f"{kept[row.name]:.0%}")
    console = Console()
    console.print(table)
    for name, detail in details.items():
        console.print(in_words(f"{name}: eager", detail["breakdown"]), markup=False)
    console.print(ALL_REDUCE_NOTE, markup=False)
    if json is not None:
        described = {**settings(setup.config(), rounds, seconds), "threads": threads}
        write_json(
            json, record(rows, unit="samples_per_s", config=described, ratios=kept, device=where, details=details)
        )


def _efficiencies(rows: list[Row]) -> dict[str, float]:
    """Rate per process of each row, as a fraction of the first row's rate per process."""
    counts = {row.name: int(row.name.split(" x ")[0]) for row in rows}
    base = rows[0].rate / counts[rows[0].name]
    return {row.name: row.rate / (base * counts[row.name]) for row in rows}


def _run(count: int, threads: int, job: Record) -> Record:
    """Pairs per second of all processes together by round, and the breakdown of a step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}") if count > 1 else ()
        command = [sys.executable, *torchrun, "-m", __name__, json_format.dumps(job), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RunError(f"{count} processes failed: {why(done.stderr)}")
        measured: Record = json_format.loads(out.read_text())
        return measured


def why(stderr: str) -> str:
    """The cause in the output of failed processes: the exception of the first, its exit code, or the last line."""
    lines = [line.strip() for line in stderr.strip().splitlines()]
    raised = [line for line in lines if re.match(r"(\[rank\d+\]: ?)?[\w.]*(Error|Exception|Interrupt): ", line)]
    ended = [line for line in lines if line.startswith("exitcode")]
    return next(iter([*raised, *reversed(ended), *reversed(lines)]), "without output")  # torchrun's root cause is last


def _work(job: Record, out: Path) -> None:
    """The job of each process."""
    setup = from_dict(Setup, job["setup"])
    world = distributed.start(setup.device)
    config = setup.config()
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, batch_norm=job["norm"]))
    cuda = world.device.type == "cuda"
    options: dict[str, Any] = {"dtype": setup.dtype, "processes": world.size}
    rates = _rates(config, world, options, job)
    batch = noise_batch(config, world.device)
    options["prepare"] = (
        use_native_sync if cuda and job["norm"] == "sync" and world.size > 1 else None
    )  # like the trainer
    parts = breakdown(config, batch, world.device, repeats=3 * job["rounds"] if cuda else 3, **options)
    if world.is_main:
        out.write_text(json_format.dumps({"rates": rates, "breakdown": parts}))
    distributed.stop()


def _rates(config: Pretrain, world: distributed.World, options: dict[str, Any], job: Record) -> list[float]:
    cuda = world.device.type == "cuda"
    step = train_step(config, world.device, compile=cuda, **options)
    views = inputs(config, noise_batch(config, world.device), options["dtype"])
    rates = []
    for round_ in range(job["rounds"] + 1):
        distributed.barrier()
        began, steps, running = time.perf_counter(), 0, True
        while running:
            step(views, global_step=0, progress=0.0)
            steps += 1
            # All processes stop at the same step, once one is over time; on CUDA this is checked every 4 steps.
            if steps % (4 if cuda else 1) == 0:
                late = torch.tensor(float(time.perf_counter() - began > job["seconds"]), device=world.device)
                running = not bool(distributed.max_over_processes(late))
        if cuda:
            torch.cuda.synchronize()
        if round_:  # the first round is a warm-up
            rates.append(steps * config.batch_size * world.size / (time.perf_counter() - began))
    return rates


if __name__ == "__main__":
    _work(json_format.loads(sys.argv[1]), Path(sys.argv[2]))
