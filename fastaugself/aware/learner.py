"""The module that is trained: a base method with auxiliary losses, compiled, wrapped in DDP and checkpointed as one."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import Targets

from ..methods.augself_only import AugSelfOnly
from ..methods.base import Method, Output, Views
from .augself import AugSelfLoss


class StepOutput(NamedTuple):
    """The losses of one batch.

    loss: scalar to differentiate. metrics: detached scalars by name, `loss` first. queue_update: argument of
    `Method.update_queue`. feature_std: collapse metric of the first view's features (see `feature_std`), detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    queue_update: tuple[Tensor, ...]
    feature_std: Tensor


def feature_std(f_BD: Tensor) -> Tensor:
    """Collapse metric of SimSiam: std over the batch of L2-normalised features, mean over D, times sqrt(D).

    0 if all samples have the same features (collapse), 1 if features are uniform on the sphere (Chen and He 2020,
    arXiv 2011.10566, section 4.1). Returns a detached float32 scalar.
    """
    f_BD = F.normalize(f_BD.detach().float(), dim=1)
    return f_BD.std(0, correction=0).mean() * f_BD.shape[1] ** 0.5


class Learner(nn.Module):
    """A base method plus the AugSelf losses: views and targets to the total loss."""

    def __init__(self, method: Method, augself: AugSelfLoss) -> None:
        super().__init__()
        self.method = method
        self.augself = augself

    def forward(self, views: Views, targets: tuple[Targets, Targets]) -> StepOutput:
        output: Output = self.method(views)
        loss = output.loss
        metrics = {"loss": loss}
        if not isinstance(self.method, AugSelfOnly):
            metrics["loss_ssl"] = output.loss
        for name, value in self.augself(*output.features, targets).items():
            loss = loss + self.augself.config.weights[name] * value
            metrics["loss_" + name] = value
        metrics["loss"] = loss
        detached = {name: value.detach() for name, value in metrics.items()}
        return StepOutput(loss, detached, output.queue_update, feature_std(output.features[0]))
