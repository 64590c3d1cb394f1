"""Time of the parts of a step, and a bound from the device's bandwidth and arithmetic rate."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..data.ragged import RaggedBatch
from ..methods.moco import MoCo
from ..training.batch import make_batch
from .setup import train_step

# ResNet-50 v1.5 at 224 px with activations of 2 bytes, per image: bytes moved if every convolution, and every batch
# norm with its ReLU and sum, reads and writes its activations once; operations. Forward, and forward with backward.
BYTES = {"forward": 121e6, "train": 345e6}
FLOP = {"forward": 2 * 4.09e9, "train": 6 * 4.09e9}
FORWARD = "query, key and loss in one graph"
NOT_HERE = "data wait and device idle time: see bench e2e; all-reduce: see bench scale"


class Stopwatch:
    """Seconds between marks; on CUDA measured with events, without synchronisation until `read`."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """Ends a section that began at the previous mark, and names it."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((name, event))
        else:
            self._marks.append((name, time.perf_counter()))

    def read(self) -> dict[str, float]:
        """Total seconds by name; the first mark only starts the watch."""
        if self.cuda:
            torch.cuda.synchronize()
        found: dict[str, float] = {}
        for (_, before), (name, now) in zip(self._marks, self._marks[1:], strict=False):
            seconds = before.elapsed_time(now) / 1e3 if self.cuda else now - before
            found[name] = found.get(name, 0.0) + seconds
        self._marks.clear()
        return found


def breakdown(
    config: Pretrain,
    batch: RaggedBatch,
    device: torch.device,
    dtype: torch.dtype,
    *,
    repeats: int,
    compiled: bool = False,
    processes: int = 1,
    prepare: Callable[[Learner], Any] | None = None,
) -> dict[str, float]:
    """Seconds of each part of a step, medians over `repeats`.

    compiled: measure the compiled step, where encoders, heads and losses are one graph and one part. processes: number
    of ranks; all of them call this. The gradients' all-reduce overlaps with the backward pass: its time is the
    difference between backward passes with and without it. prepare: modifies the learner first.
    """
    step = train_step(
        config, device, dtype=dtype, compile=compiled, batched_views=compiled, processes=processes, prepare=prepare
    )
    watch = Stopwatch(device)
    forward = FORWARD if compiled else "heads and loss"
    if not compiled:
        _watch_encoders(step.learner.method, watch)
    source = RaggedBatch(*(t.cpu().pin_memory() for t in batch)) if device.type == "cuda" else batch
    found: dict[str, list[float]] = {}
    for i in range(repeats * min(2, processes) + 2):
        alone = processes > 1 and i % 2 == 1  # every other step skips the all-reduce
        watch.mark("start")
        moved = source.to(device, non_blocking=True) if device.type == "cuda" else source
        watch.mark("copy")
        views = make_batch(config, moved, i, dtype).views
        watch.mark("augment")
        step.optimizer.zero_grad()
        with step.gradient_sync(last=not alone):
            result = step.forward(views)
            watch.mark(forward)
            step.scaler.scale(result.loss).backward()
        watch.mark("backward, alone" if alone else "backward")
        if not alone:
            step.scaler.step(step.optimizer)
            step.scaler.update()
            watch.mark("optimizer")
            step.learner.update_ema(0.0)
            step.learner.method.update_queue(result.queue_update, 0.0)
            watch.mark("EMA and queue")
        seconds = watch.read()
        if i > 1:  # one warm-up step with and one without all-reduce
            for name, value in seconds.items():
                found.setdefault(name, []).append(value)
    parts = {name: statistics.median(values) for name, values in found.items()}
    if processes > 1:
        backward = parts.pop("backward, alone")
        parts["all-reduce"] = max(0.0, parts["backward"] - backward)
        parts["backward"] = backward
    return parts


def _watch_encoders(method: nn.Module, watch: Stopwatch) -> None:
    encoders = {"query encoder": method.backbone}
    for name in ("key_backbone", "target_backbone"):
        if hasattr(method, name):
            encoders["key encoder"] = getattr(method, name)
    for name, module in encoders.items():
        assert isinstance(module, nn.Module)
        _around(module, watch, "heads and loss", name)


def in_words(name: str, parts: dict[str, float]) -> str:
    """One line with the fraction of each part. name: the kind of step."""
    total = sum(parts.values())
    fractions = "  ".join(f"{part} {seconds / total:.0%}" for part, seconds in parts.items())
    return f"{name} step, {total * 1e3:,.1f} ms: {fractions}"


def _around(module: nn.Module, watch: Stopwatch, before: str, name: str) -> None:
    module.register_forward_pre_hook(lambda *_: watch.mark(before))
    module.register_forward_hook(lambda *_: watch.mark(name))


def bound(config: Pretrain, device: torch.device) -> dict[str, float] | None:
    """Upper bound in pairs/s: memory traffic and arithmetic of the encoders at full speed, without overlap.

    For ResNet-50 at 224 px, else None. The device's bandwidth (a copy) and bf16 rate (a matrix product) are measured.
    """
    if config.backbone.name != "resnet50" or config.backbone.width != 64 or config.view.size != 224:
        return None
    x = torch.empty(2**30, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    bandwidth = 2 * x.numel() / _seconds(lambda: y.copy_(x))
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    rate = 2 * 8192**3 / _seconds(lambda: a @ a)
    if isinstance(config.method, MoCo):
        moved, computed = BYTES["train"] + BYTES["forward"], FLOP["train"] + FLOP["forward"]
    else:
        has_ema = hasattr(config.method, "momentum")
        moved, computed = (2 * (v["train"] + has_ema * v["forward"]) for v in (BYTES, FLOP))
    seconds = moved / bandwidth + computed / rate
    return {"samples_per_s": 1 / seconds, "bytes_per_s": bandwidth, "flop_per_s": rate}


def _seconds(work: Callable[[], Any], repeats: int = 20) -> float:
    for _ in range(3):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats
