"""Detects NaN and Inf losses on the device (with step, rank and sample ids), and collapsed features."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..distributed import World, all_gather
from ..files import replace_file

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """The first NaN or Inf loss. step: counted from 1. rank: where it occurred."""

    step: int
    rank: int


class LossWatch:
    """Records the first step with a NaN or Inf loss, and its sample ids, without host sync."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._step = torch.full((1,), -1, dtype=torch.int64, device=world.device)
        self._ids_B: Tensor | None = None

    def update(self, loss: Tensor, step: int, ids_B: Tensor) -> None:
        """Call after each step. loss: scalar. step: counted from 1. ids_B: int64 sample ids of this rank."""
        new = (self._step < 0) & ~torch.isfinite(loss.detach())
        self._step = torch.where(new, step, self._step)
        self._ids_B = torch.where(new, ids_B, ids_B if self._ids_B is None else self._ids_B)

    def found(self) -> Found | None:
        """The first NaN or Inf loss over all ranks, or None; a collective call that waits for the device."""
        steps = all_gather(self._step).tolist()
        bad = [Found(step, rank) for rank, step in enumerate(steps) if step >= 0]
        return min(bad) if bad else None

    def dump(self, path: Path, found: Found, **context: Any) -> None:
        """Writes the sample ids of that step to `path`, on its rank only. context: further JSON values."""
        if self.world.rank != found.rank or self._ids_B is None:
            return
        record = {**found._asdict(), **context, "sample_ids": self._ids_B.tolist()}
        replace_file(path, (json.dumps(record, indent=2) + "\n").encode())


class CollapseAlarm:
    """Logs one warning when the features of all samples become nearly equal (collapse)."""

    LEVEL = 0.01

    def __init__(self) -> None:
        self._warned = False

    def update(self, feature_std: float, step: int) -> None:
        """feature_std: mean of `StepOutput.feature_std` since the last log line."""
        if feature_std < self.LEVEL and not self._warned:
            self._warned = True
            log.warning(
                "the features of all samples of a batch are nearly the same at step %d (feature_std %.4f; 0 is "
                "collapse, 1 uniform on the sphere): try a lower --optim.lr or a longer --optim.warmup-epochs",
                step,
                feature_std,
            )


@torch.no_grad()
def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no value is NaN or Inf; waits for the device."""
    floating = [t for t in tensors if t.is_floating_point()]
    return not floating or bool(torch.stack(list(torch._foreach_norm(floating))).isfinite().all())
