"""One optimizer step on views that are there: forward, backward, update, momentum encoder and queue.

Nothing in here waits for the device. Shape suffixes: V views, B batch.
"""

import gc
import inspect
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastaugself_kernels import Targets

from ..errors import RunError
from ..methods.base import Views
from ..methods.learner import Learner, Step
from ..models.normalise import keep_in_graph
from .distributed import Ballot, rank, world_size

log = logging.getLogger(__name__)

Compile = Literal["auto", "on", "off"]


class TrainStep:
    """A learner and its optimizer, replicated and compiled.

    learner: on its device. dtype: of the activations. processes: among which gradients are averaged. compile: "auto"
    compiles on CUDA and goes on without where that fails, "on" fails then. accumulate: parts of the batch whose
    gradients are summed before the update. cuda_graphs: record the compiled kernels and replay them.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        processes: int = 1,
        compile: Compile = "auto",
        accumulate: int = 1,
        cuda_graphs: bool = False,
    ) -> None:
        self.learner, self.optimizer, self.device, self.dtype = learner, optimizer, device, dtype
        self.accumulate, self.insist, self.processes = accumulate, compile == "on", processes
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.compiled = compiles(compile, device)
        """Whether steps run compiled code."""
        self.cuda_graphs = cuda_graphs and self.compiled and device.type == "cuda"
        self.proven = not self.compiled
        self.module = self._module()

    def _module(self) -> nn.Module:
        """The learner, compiled, and replicated around that: so Dynamo sees nothing of DistributedDataParallel.

        It still cuts the graph where gradients fill one of DDP's buckets, for their exchange to run beside the rest of
        the backward pass (torch._dynamo.config.optimize_ddp).
        """
        module: nn.Module = self.learner
        if self.compiled:
            keep_in_graph()
            mode = "reduce-overhead" if self.cuda_graphs else None
            module = cast(nn.Module, torch.compile(module, dynamic=False, mode=mode))
        return _replicated(module, self.device) if self.processes > 1 else module

    def __call__(self, views: Views, targets: tuple[Targets, Targets], *, step: int, progress: float) -> Step:
        """Makes step number `step` (from 0) and gives its losses. progress: share of the run that is done after it."""
        result = self._gradients(views, targets)
        self.learner.method.after_backward(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.learner.method.after_step(result.carry, progress)
        return result

    def _gradients(self, views: Views, targets: tuple[Targets, Targets]) -> Step:
        """Forward and backward; compiled code that fails in its first step is left for good.

        One process cannot leave it alone: the others are then within exchanges that it did not come to.
        """
        if self.proven or self.insist:
            return self._forward_backward(views, targets)
        before = [buffer.clone() for buffer in self.learner.buffers()]
        ballot, reason, result = Ballot(), "", None
        try:
            result = self._forward_backward(views, targets)
        except Exception as error:  # of Dynamo, Inductor, Triton or a compiler: they share no base class
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        try:
            failed = ballot.count(result is None)
        except RuntimeError:  # the others are stuck, or have ended
            failed = 0
        if result is not None and not failed:
            self.proven = True
            return result
        if failed != world_size():
            where = f"on rank {rank()} and not on all" if result is None else "on some"
            raise RunError(
                f"the first compiled step failed {where} processes ({reason or 'they say why'}); if the compiler is to "
                "blame, pass --compile off"
            )
        log.warning("torch.compile failed (%s); training goes on without it", reason)
        self.compiled, self.proven, self.cuda_graphs = False, True, False
        del self.module
        gc.collect()  # with it go its hooks on the parameters, which wait for a backward pass that was broken off
        self.module = self._module()
        with torch.no_grad():
            for buffer, value in zip(self.learner.buffers(), before, strict=True):
                buffer.copy_(value)  # the statistics of batch norm may have moved already
        return self._forward_backward(views, targets)

    def _forward_backward(self, views: Views, targets: tuple[Targets, Targets]) -> Step:
        self.optimizer.zero_grad()  # to None; apex's takes no option
        if self.accumulate == 1:
            result = self._forward(views, targets)
            self.scaler.scale(result.loss).backward()
            return result
        results = []
        parts = self.parts(views, targets)
        for i, part in enumerate(parts):
            with self.alone() if i < len(parts) - 1 else nullcontext():
                result = self._forward(*part)
                self.scaler.scale(result.loss / self.accumulate).backward()
            results.append(result._replace(loss=result.loss.detach()))
        return _mean(results)

    def _forward(self, views: Views, targets: tuple[Targets, Targets]) -> Step:
        if self.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype) if half else nullcontext():
            return self.module(views, targets)

    def parts(self, views: Views, targets: tuple[Targets, Targets]) -> list[tuple[Views, tuple[Targets, Targets]]]:
        """What goes through the networks at a time: the batch, in `accumulate` equal parts in its order."""
        return list(zip(_split_views(views, self.accumulate), _split(targets, self.accumulate), strict=True))

    def alone(self) -> AbstractContextManager[None]:
        """Gradients stay with this process: only the last part's backward sends the sum."""
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else nullcontext()


def compiles(choice: Compile, device: torch.device) -> bool:
    """Whether steps are compiled there: "auto" does on CUDA."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def seed_step(seed: int, step: int, rank: int) -> None:
    """Addresses what a model draws in a step (dropout, stochastic depth), so that a resumed run draws the same."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1))


def _replicated(module: nn.Module, device: torch.device) -> nn.Module:
    ids = [device.index] if device.type == "cuda" else None
    # Buffers stay each process's own; torch 2.13 renamed the option.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    own = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {own: False}
    return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True, **options)


def _split_views(views: Views, parts: int) -> list[Views]:
    """The batch in equal parts, in order."""

    def along(x: Tensor | None, dim: int) -> list[Tensor | None]:
        return [None] * parts if x is None else list(x.chunk(parts, dim))

    columns = (
        along(views.x_VBCHW, 1),
        along(views.labels_B, 0),
        along(views.omega_VBn, 1),
        along(views.small_VBCHW, 1),
    )
    return [Views(*part) for part in zip(*columns, strict=True)]  # type: ignore[arg-type]


def _split(targets: tuple[Targets, Targets], parts: int) -> list[tuple[Targets, Targets]]:
    first, second = ([Targets(*part) for part in zip(*(x.chunk(parts) for x in t), strict=True)] for t in targets)
    return list(zip(first, second, strict=True))


def _mean(results: list[Step]) -> Step:
    """The losses of the whole batch, and what its samples leave behind, in their order."""
    metrics = {name: torch.stack([r.metrics[name] for r in results]).mean() for name in results[0].metrics}
    carry = tuple(torch.cat(parts) for parts in zip(*(r.carry for r in results), strict=True))
    loss, spread = (torch.stack([getattr(r, name) for r in results]).mean() for name in ("loss", "spread"))
    return Step(loss, metrics, carry, spread)


def keep_compiled_code(folder: Path) -> None:
    """Lets torch.compile and Triton keep what they compile in `folder`, unless the environment says where."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((folder / "inductor").absolute()))
    os.environ.setdefault("TRITON_CACHE_DIR", str((folder / "triton").absolute()))
