"""What a method is: a module from views to a loss and features, and what it does after the optimizer's step.

Shape suffixes: V views, B batch, C channels, H W, D features.
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Output(NamedTuple):
    """What a method's forward gives.

    loss: scalar, to be differentiated. features: pooled backbone features of the first two views, each [B, D], for
    auxiliary losses. carry: tensors that `after_step` needs, detached.
    """

    loss: Tensor
    features: tuple[Tensor, Tensor]
    carry: tuple[Tensor, ...]


class Method(Protocol):
    """A method is an nn.Module with a `backbone` and these two calls."""

    backbone: nn.Module

    def __call__(self, x_VBCHW: Tensor) -> Output: ...

    def after_step(self, carry: tuple[Tensor, ...]) -> None:
        """Momentum encoders, queues: after the optimizer's step, outside the graph."""
        ...
