"""Gradient accumulation: splits a batch into micro-batches and merges their outputs."""

import torch
from torch import Tensor

from fastaugself_kernels import Targets

from ..aware.learner import StepOutput
from ..methods.base import Views

Inputs = tuple[Views, tuple[Targets, Targets]]


def split(views: Views, targets: tuple[Targets, Targets], count: int) -> list[Inputs]:
    """Splits a batch into `count` micro-batches of equal size, in order."""
    if count == 1:
        return [(views, targets)]
    first, second = (_split_targets(t, count) for t in targets)
    return list(zip(_split_views(views, count), zip(first, second, strict=True), strict=True))


def merge(outputs: list[StepOutput]) -> StepOutput:
    """The output of the whole batch: mean losses, and queue updates concatenated in the order of the samples."""
    if len(outputs) == 1:
        return outputs[0]
    metrics = {name: torch.stack([o.metrics[name] for o in outputs]).mean() for name in outputs[0].metrics}
    queue_update = tuple(torch.cat(parts) for parts in zip(*(o.queue_update for o in outputs), strict=True))
    loss, feature_std = (torch.stack([getattr(o, name) for o in outputs]).mean() for name in ("loss", "feature_std"))
    return StepOutput(loss, metrics, queue_update, feature_std)


def _split_views(views: Views, count: int) -> list[Views]:
    def chunks(x: Tensor | None, dim: int) -> list[Tensor | None]:
        return [None] * count if x is None else list(x.chunk(count, dim))

    columns = (
        chunks(views.x_VBCHW, 1),
        chunks(views.labels_B, 0),
        chunks(views.condition_VBn, 1),
        chunks(views.local_LBCHW, 1),
    )
    return [Views(*part) for part in zip(*columns, strict=True)]  # type: ignore[arg-type]


def _split_targets(targets: Targets, count: int) -> list[Targets]:
    return [Targets(*part) for part in zip(*(x.chunk(count) for x in targets), strict=True)]
