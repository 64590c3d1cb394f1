"""Losses averaged over processes and over the steps since the last log line; throughput and time left."""

import math
import resource
import sys
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..aware.learner import StepOutput
from ..distributed import mean_over_processes, world_size


class Means(NamedTuple):
    """The values of one log line.

    losses: mean losses and mean `feature_std`, by name. corrupt: number of photos that could not be decoded, over
    all processes. pairs_per_s: over all processes. data_wait: fraction of the time spent waiting for data.
    seconds_left: until the last step.
    """

    losses: dict[str, float]
    corrupt: int
    pairs_per_s: float
    data_wait: float
    seconds_left: float

    def status(self, lr: float, memory: str) -> str:
        """One line for the console."""
        parts = "  ".join(f"{name.removeprefix('loss_')} {value:.4f}" for name, value in self.losses.items())
        return (
            f"{parts}  lr {lr:.3g}  {self.pairs_per_s:.0f} pairs/s  wait {self.data_wait:.0%}  {memory}  "
            f"{duration(self.seconds_left)} left"
        )

    def record(self, global_step: int, epoch: float, lr: float) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        return {
            "step": global_step,
            "epoch": epoch,
            **self.losses,
            "lr": lr,
            "pairs_per_s": self.pairs_per_s,
            "data_wait": self.data_wait,
            **({"corrupt": self.corrupt} if self.corrupt else {}),
        }


class Metrics:
    """Accumulates metrics on the device; only `read` waits for it.

    global_batch: global batch size. first_step, last_step: steps between which this process trains.
    """

    def __init__(self, global_batch: int, *, first_step: int, last_step: int) -> None:
        self._global_batch, self._first, self._last = global_batch, first_step, last_step
        self._began = self._since = self._returned = time.perf_counter()
        self._sums: Tensor | None = None
        self._names: list[str] = []
        self._steps, self._waited = 0, 0.0

    def data_ready(self) -> None:
        """Call when the next batch has arrived."""
        self._waited += time.perf_counter() - self._returned

    def update(self, output: StepOutput) -> None:
        """Adds the losses of one step."""
        metrics = {**output.metrics, "feature_std": output.feature_std}
        values = torch.stack([value.float() for value in metrics.values()])
        self._names = [*metrics]
        self._sums = values if self._sums is None else self._sums + values
        self._steps += 1

    def step_done(self, excluded: float) -> None:
        """Call at the end of a loop iteration. excluded: seconds spent in evaluations and checkpoints."""
        self._since += excluded
        self._returned = time.perf_counter()

    def read(self, global_step: int, corrupt: int) -> Means:
        """Means since the last call, over all processes; a collective call that waits for the device.

        corrupt: number of corrupt photos on this process. Raises RuntimeError if there was no step since the last call.
        """
        if self._sums is None:
            raise RuntimeError("no step since the last call of read")
        row = torch.cat([self._sums / self._steps, self._sums.new_tensor([corrupt])])
        *means, mean_corrupt = mean_over_processes(row).tolist()
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rate, wait = self._steps * self._global_batch / seconds, self._waited / seconds
        left = (now - self._began) / (global_step - self._first) * (self._last - global_step)
        self._since, self._steps, self._waited, self._sums = time.perf_counter(), 0, 0.0, None
        return Means(dict(zip(self._names, means, strict=True)), round(mean_corrupt * world_size()), rate, wait, left)


def duration(seconds: float) -> str:
    """A duration as text, such as `1 h 02 min`."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h} h {m:02d} min" if h else f"{m} min {s:02d} s" if m else f"{s} s"


def device_memory(device: torch.device) -> dict[str, float]:
    """GiB of a CUDA device, for metrics.jsonl: the most that tensors took, and what is reserved now; else empty.

    A reserve that grows from epoch to epoch is a leak: memory that is freed and never used again.
    """
    if device.type != "cuda":
        return {}
    return {
        "memory_gib": torch.cuda.max_memory_allocated(device) / 2**30,
        "memory_reserved_gib": torch.cuda.memory_reserved(device) / 2**30,
    }


def memory(device: torch.device) -> str:
    """Peak memory: of the CUDA device, or of this process on a CPU."""
    if device.type == "cuda":
        return "{memory_gib:.1f} GiB ({memory_reserved_gib:.1f} reserved)".format(**device_memory(device))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"
