"""One optimizer step: forward, backward, clipping, optimizer, EMA update, queue update; without host sync."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from ..aware.learner import Learner, StepOutput
from ..methods.base import Views
from . import micro_batches
from .compile import Compile, compiles, probe, wrap
from .optim import clip_gradients


class TrainStep:
    """One optimizer step on a batch of views, without host sync.

    learner: on its device. dtype: of the activations. processes: number of processes for DDP. compile: "auto"
    compiles on CUDA. accumulate: gradient accumulation steps. cuda_graphs: use CUDA graphs if compiled. clip_grad:
    maximum norm of the gradient, 0 for no clipping. clip_by: see `clip_gradients`.
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
        clip_grad: float = 0.0,
        clip_by: Literal["global", "parameter"] = "global",
    ) -> None:
        self.learner, self.optimizer = learner, optimizer
        self.clip_grad, self.clip_by = clip_grad, clip_by
        self.device, self.dtype, self.accumulate = device, dtype, accumulate
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.compiled = compiles(compile, device)
        """Whether steps run compiled code."""
        self.cuda_graphs = cuda_graphs and self.compiled and device.type == "cuda"
        self.must_compile, self._distributed = compile == "on", processes > 1
        self.model = self._wrap()

    def __call__(self, views: Views, *, global_step: int, progress: float) -> StepOutput:
        """One optimizer step. global_step: counted from 0. progress: fraction of the run done after it, in [0, 1]."""
        method = self.learner.method
        output = self.forward_backward(views)
        method.after_backward(global_step)
        if self.clip_grad:
            output = self.clip(output)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        method.after_optimizer_step()
        self.learner.update_ema(progress)
        method.update_queue(output.queue_update, progress)
        return output

    def forward_backward(self, views: Views) -> StepOutput:
        """Forward and backward pass with gradient accumulation; DDP averages gradients over processes."""
        self.optimizer.zero_grad()
        if self.accumulate == 1:
            output = self.forward(views)
            self.scaler.scale(output.loss).backward()
            return output
        outputs: list[StepOutput] = []
        for part in micro_batches.split(views, self.accumulate):
            with self.gradient_sync(last=len(outputs) == self.accumulate - 1):
                output = self.forward(part)
                self.scaler.scale(output.loss / self.accumulate).backward()
            outputs.append(output._replace(loss=output.loss.detach()))
        return micro_batches.merge(outputs)

    def clip(self, output: StepOutput) -> StepOutput:
        """Clips the gradients, and adds their norm before that to the metrics."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.optimizer, self.clip_grad, self.clip_by)
        return output._replace(metrics={**output.metrics, "grad_norm": norm})

    def forward(self, views: Views) -> StepOutput:
        """Forward pass of a micro-batch in mixed precision."""
        if self.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output: StepOutput = self.model(views)
        return output

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[Any]:
        """Context in which DDP synchronises gradients only in the backward pass of the last micro-batch."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def probe(self, views: Views) -> None:
        """Compiles on a first batch; falls back to eager mode if that fails, unless compile is "on"."""
        if not self.compiled or self.must_compile or probe(self.learner, lambda: self.forward_backward(views)):
            return
        self.compiled, self.cuda_graphs = False, False
        del self.model
        self.model = self._wrap()

    def _wrap(self) -> torch.nn.Module:
        return wrap(
            self.learner,
            self.device,
            compiled=self.compiled,
            distributed=self._distributed,
            cuda_graphs=self.cuda_graphs,
        )


def seed_step(seed: int, global_step: int, rank: int) -> None:
    """Seeds dropout and stochastic depth of a step, so that a resumed run draws the same numbers."""
    torch.manual_seed(int(np.random.SeedSequence((seed, global_step, rank)).generate_state(1, np.uint64)[0] >> 1))
