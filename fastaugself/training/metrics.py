"""Metrics of the steps since the last log line, averaged over steps and processes; throughput and time left."""

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
    """What one log line reports.

    losses: means of the losses and of `feature_std` by name. corrupt: number of photos that could not be decoded, over
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
    """Sums on the device; nothing waits for it before `read`.

    global_batch: samples of a step over all processes. first_step, last_step: of this process's part of the run.
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

    def step_done(self, aside: float) -> None:
        """Call at the end of a loop iteration. aside: seconds of it for checks and checkpoints, which do not count."""
        self._since += aside
        self._returned = time.perf_counter()

    def read(self, global_step: int, corrupt: int) -> Means:
        """Averages since the last reading, on all processes at once; waits for the device. corrupt: on this process."""
        if self._sums is None:
            raise RuntimeError("no step since the last reading")
        row = torch.cat([self._sums / self._steps, self._sums.new_tensor([corrupt])])
        *means, mean_corrupt = mean_over_processes(row).tolist()
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rate, wait = self._steps * self._global_batch / seconds, self._waited / seconds
        left = (now - self._began) / (global_step - self._first) * (self._last - global_step)
        self._since, self._steps, self._waited, self._sums = time.perf_counter(), 0, 0.0, None
        return Means(dict(zip(self._names, means, strict=True)), round(mean_corrupt * world_size()), rate, wait, left)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as `1 h 02 min`."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h} h {m:02d} min" if h else f"{m} min {s:02d} s" if m else f"{s} s"


def memory(device: torch.device) -> str:
    """The most memory taken so far: of the device on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB on Linux
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f} GiB"
