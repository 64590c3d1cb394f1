"""One module around a method and its auxiliary losses: the unit that is compiled, replicated and checkpointed."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import Targets

from .augself import AugSelfLoss
from .base import Method, Output, Views
from .pretext import PretextMethod


class Step(NamedTuple):
    """loss: what is differentiated. metrics: detached scalars, `loss` first. carry: for `Method.after_step`.

    spread: of the features over the batch, detached (`spread_of`).
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    carry: tuple[Tensor, ...]
    spread: Tensor


def spread_of(f_BD: Tensor) -> Tensor:
    """Standard deviation over the batch of features of length 1, mean over them, times sqrt(D), detached.

    0 where all samples have the same features: collapse. 1 where they are spread evenly over the sphere (Chen and He
    2020, arXiv 2011.10566, section 4.1). float32.
    """
    f_BD = F.normalize(f_BD.detach().float(), dim=1)
    return f_BD.std(0, correction=0).mean() * f_BD.shape[1] ** 0.5


class Learner(nn.Module):
    """A method plus AugSelf: views and targets to the total loss."""

    def __init__(self, method: Method, augself: AugSelfLoss) -> None:
        super().__init__()
        self.method = method
        self.augself = augself

    def forward(self, views: Views, targets: tuple[Targets, Targets]) -> Step:
        output: Output = self.method(views)
        loss = output.loss
        metrics = {"loss": loss}
        if not isinstance(self.method, PretextMethod):
            metrics["loss_ssl"] = output.loss
        for name, value in self.augself(*output.features, targets).items():
            loss = loss + self.augself.config.weights[name] * value
            metrics["loss_" + name] = value
        metrics["loss"] = loss
        detached = {name: value.detach() for name, value in metrics.items()}
        return Step(loss, detached, output.carry, spread_of(output.features[0]))
