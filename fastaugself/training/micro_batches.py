"""Gradient accumulation: splits a batch into micro-batches and merges their outputs."""

import torch
from torch import Tensor

from ..aware.learner import StepOutput
from ..methods.base import ExtraViews, Views


def split(views: Views, count: int) -> list[Views]:
    """Splits a batch into `count` micro-batches of equal size, in order."""
    if count == 1:
        return [views]

    def part(x: Tensor, i: int, dim: int) -> Tensor:
        return x.chunk(count, dim)[i]

    def optional(x: Tensor | None, i: int, dim: int) -> Tensor | None:
        return None if x is None else part(x, i, dim)

    return [
        Views(
            part(views.x_VBCHW, i, 1),
            part(views.labels_B, i, 0),
            optional(views.condition_VBn, i, 1),
            optional(views.local_LBCHW, i, 1),
            optional(views.params_VBP, i, 1),
            optional(views.sizes_B2, i, 0),
            tuple(
                ExtraViews(
                    part(extra.x_VBCHW, i, 1),
                    part(extra.params_VBP, i, 1),
                    part(extra.sizes_B2, i, 0),
                    optional(extra.condition_VBn, i, 1),
                )
                for extra in views.extra
            ),
        )
        for i in range(count)
    ]


def merge(outputs: list[StepOutput]) -> StepOutput:
    """The output of the whole batch: mean losses, and queue updates concatenated in the order of the samples."""
    if len(outputs) == 1:
        return outputs[0]
    metrics = {name: torch.stack([o.metrics[name] for o in outputs]).mean() for name in outputs[0].metrics}
    queue_update = tuple(torch.cat(parts) for parts in zip(*(o.queue_update for o in outputs), strict=True))
    loss, feature_std = (torch.stack([getattr(o, name) for o in outputs]).mean() for name in ("loss", "feature_std"))
    return StepOutput(loss, metrics, queue_update, feature_std)
