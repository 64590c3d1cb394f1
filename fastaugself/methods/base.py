"""What a method is: a module from views to a loss and features, and what it does around the optimizer's step.

A new method is one file: a frozen dataclass of options with `build`, and an nn.Module with the calls of `Method`
(docs/new-method.md).

Shape suffixes: V views, B batch, C channels, H W, D features, n columns of a condition.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ..errors import UsageError
from .cassle import Cassle


class Views(NamedTuple):
    """A batch as methods see it.

    x_VBCHW: the views. labels_B: int64 class of each sample, -1 where unknown. omega_VBn: each view's own augmentation
    descriptors, where projectors are conditioned on them. small_VBCHW: further views at a smaller size (multi-crop).
    """

    x_VBCHW: Tensor
    labels_B: Tensor
    omega_VBn: Tensor | None = None
    small_VBCHW: Tensor | None = None

    def omega(self, view: int) -> Tensor | None:
        """The condition of one view."""
        return None if self.omega_VBn is None else self.omega_VBn[view]


class Output(NamedTuple):
    """What a method's forward gives.

    loss: scalar, to be differentiated. features: pooled backbone features of the first two views, each [B, D], for
    auxiliary losses: the trained encoder's wherever it sees the view. carry: tensors that `after_step` needs, detached.
    """

    loss: Tensor
    features: tuple[Tensor, Tensor]
    carry: tuple[Tensor, ...] = ()


def encode(backbone: nn.Module, x_VBCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] of the first two views; in one forward pass where the trainer has set `backbone.joint`."""
    if getattr(backbone, "joint", False):
        first, second = backbone(x_VBCHW[:2].flatten(0, 1)).chunk(2)
        return first, second
    return backbone(x_VBCHW[0]), backbone(x_VBCHW[1])


@dataclass(frozen=True)
class Parts:
    """What a method is built around."""

    backbone: nn.Module
    num_features: int
    sync: bool
    cassle: Cassle
    classes: int


class Options:
    """Base of the options of all methods, which are frozen dataclasses."""

    title: ClassVar[str]
    """Name of the method in prose."""
    multi_crop: ClassVar[bool] = False
    """Whether it takes further small views."""
    conditional: ClassVar[bool] = True
    """Whether it has a projector that CASSLE can condition."""

    def check(self, batch_size: int) -> None:
        """Raises UsageError where the options do not go with the batch size (over all processes)."""

    def build(self, parts: Parts) -> "Method":
        """The method around the backbone of `parts`, which it keeps as `backbone`."""
        raise NotImplementedError


def at_least_one(options: Options, *names: str) -> None:
    """Raises UsageError where one of these options is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            raise UsageError(f"--method.{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")


class Method(nn.Module):
    """Base of all methods."""

    backbone: nn.Module
    constant_lr: ClassVar[tuple[str, ...]] = ()
    """Submodules whose learning rate stays at its peak."""
    separable: ClassVar[bool] = False
    """Whether the loss is a mean over samples: the gradients of parts of a batch then add up to that of the whole."""

    def forward(self, views: Views) -> Output:
        raise NotImplementedError

    def after_backward(self, step: int) -> None:
        """Between the backward pass and the optimizer's step: gradients that are to be dropped."""

    def after_step(self, carry: tuple[Tensor, ...], progress: float) -> None:
        """Momentum encoders and queues, after the optimizer's step. progress: share of the run, in [0, 1]."""
