"""One module around a method and its auxiliary losses: the unit that is compiled, replicated and checkpointed."""

from typing import NamedTuple

from torch import Tensor, nn

from fastaugself_kernels import Targets

from .augself import AugSelfLoss
from .base import Method, Output, Views
from .pretext import PretextMethod


class Step(NamedTuple):
    """loss: what is differentiated. metrics: detached scalars, `loss` first. carry: for `Method.after_step`."""

    loss: Tensor
    metrics: dict[str, Tensor]
    carry: tuple[Tensor, ...]


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
        return Step(loss, {name: value.detach() for name, value in metrics.items()}, output.carry)
