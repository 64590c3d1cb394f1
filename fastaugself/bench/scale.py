"""Weak scaling: the same batch on every process, on one and more processes, with plain and synchronised batch norm.

Processes are started by torchrun on this machine: NCCL on CUDA, gloo on a CPU. Each takes steps on its own ready views,
so that what is lost to one process is communication and waiting.
"""

import dataclasses
import json as json_format
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..errors import RunError
from ..models.norm import use_native_sync
from ..training import distributed
from ..training.environment import environment
from .harness import write_json
from .step import DTYPES, MethodName, bench_config, inputs, photos, train_step


def scale_benchmark(
    json: Path | None = None,
    processes: tuple[int, ...] = (1, 2),
    method: MethodName = "moco",
    backbone: str = "auto",
    width: int = 64,
    size: int = 0,
    batch: int = 0,
    queue: int = 0,
    rounds: int = 5,
    seconds: float = 1.0,
    device: str = "auto",
) -> None:
    """Pairs of views per second on several processes, and how much of the ideal rate they keep.

    Args:
        json: File for the result.
        processes: Numbers of processes.
        method: Method to train.
        backbone: ResNet; auto is resnet50 on CUDA and resnet18 on a CPU.
        width: Channels of its first stage.
        size: Side of the views in pixels; 0 is 224 on CUDA and 64 on a CPU.
        batch: Pairs in a step of each process; 0 is 256 on CUDA and 16 on a CPU.
        queue: Keys in MoCo's queue; 0 is 65536 on CUDA and 4096 on a CPU.
        rounds: Rounds of each setting.
        seconds: Seconds of a round.
        device: cpu, cuda, or auto for CUDA where there is one.
    """
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    settings = {
        "method": method, "backbone": ("resnet50" if cuda else "resnet18") if backbone == "auto" else backbone,
        "width": width, "size": size or (224 if cuda else 64), "batch": batch or (256 if cuda else 16),
        "queue": queue or (65_536 if cuda else 4096),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for norm in ("plain", "sync"):
        for count in processes:
            rounds_ = _run(count, {**settings, "norm": norm, "rounds": rounds, "seconds": seconds, "cuda": cuda})
            rows.append(
                {"name": f"{count} x {norm}", "samples_per_s": sorted(rounds_)[len(rounds_) // 2], "rounds": rounds_}
            )
    ratios = _efficiencies(rows, processes)
    table = Table("processes x batch norm", "pairs/s", "of the ideal")
    for row in rows:
        table.add_row(row["name"], f"{row['samples_per_s']:,.1f}", f"{ratios[row['name']]:.0%}")
    Console().print(table)
    if json is not None:
        where = torch.device("cuda" if cuda else "cpu")
        write_json(json, {"environment": environment(where), "config": settings, "rows": rows, "ratios": ratios})


def _efficiencies(rows: list[dict[str, Any]], processes: tuple[int, ...]) -> dict[str, float]:
    """Each rate as a share of what as many of the smallest number of processes with plain batch norm would give."""
    base = rows[0]["samples_per_s"] / processes[0]
    return {row["name"]: row["samples_per_s"] / (base * int(row["name"].split(" x ")[0])) for row in rows}


def _run(count: int, settings: dict[str, Any]) -> list[float]:
    """Pairs per second of all processes together, by round."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rates.json"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"),
            *("-m", __name__, json_format.dumps(settings), str(out)),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"{count} processes failed: {done.stderr.strip().splitlines()[-1:]}")
        rates: list[float] = json_format.loads(out.read_text())
        return rates


def _work(settings: dict[str, Any], out: Path) -> None:
    """What each process does."""
    world = distributed.start("cuda" if settings["cuda"] else "cpu")
    names = ("method", "backbone", "width", "size", "batch", "queue")
    config = bench_config(**{name: settings[name] for name in names})
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, batch_norm=settings["norm"]))
    cuda = world.device.type == "cuda"
    dtype = DTYPES["bf16" if cuda else "fp32"]
    prepare = use_native_sync if cuda and settings["norm"] == "sync" else None
    step = train_step(config, world.device, dtype=dtype, compile=cuda, processes=world.size, prepare=prepare)
    views, targets = inputs(config, photos(config, world.device), dtype, channels_last=True)
    rates = []
    for round_ in range(settings["rounds"] + 1):
        distributed.barrier()
        began, steps, going = time.perf_counter(), 0, True
        while going:
            step(views, targets, step=0, progress=0.0)
            steps += 1
            # All processes take as many steps: the longest-running one's clock decides, every few steps.
            if steps % 4 == 0:
                late = torch.tensor(float(time.perf_counter() - began > settings["seconds"]), device=world.device)
                going = not bool(distributed.max_over_processes(late))
        if cuda:
            torch.cuda.synchronize()
        if round_:  # the first warms up
            rates.append(steps * config.batch_size * world.size / (time.perf_counter() - began))
    if world.leads:
        out.write_text(json_format.dumps(rates))
    distributed.stop()


if __name__ == "__main__":
    _work(json_format.loads(sys.argv[1]), Path(sys.argv[2]))
