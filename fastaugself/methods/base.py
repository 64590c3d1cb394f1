"""Interface of the base methods: options (`MoCo`, a frozen dataclass) and a module (`MoCoMethod`, an nn.Module).

The options have the method's name because recipes and the command line use them; `options.build(context)` builds the
module. A new method is one file with both classes (docs/new-method.md).

Shape suffixes: V views, L local crops, B batch, C channels, H W, D features, n condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ..errors import UsageError
from ..models.heads import LastNorm, Projector


class Views(NamedTuple):
    """The input of a method's forward pass.

    x_VBCHW: global views. labels_B: int64 classes, -1 if unknown. condition_VBn: augmentation descriptors of each view
    (global views first, then local crops), or None if the projector is not conditioned. local_LBCHW: local crops
    (multi-crop), at a smaller size, or None.
    """

    x_VBCHW: Tensor
    labels_B: Tensor
    condition_VBn: Tensor | None = None
    local_LBCHW: Tensor | None = None

    def condition(self, view: int) -> Tensor | None:
        """The condition [B, n] of one view, or None."""
        return None if self.condition_VBn is None else self.condition_VBn[view]


class Output(NamedTuple):
    """The output of a method's forward pass.

    loss: scalar to differentiate. features: pooled backbone features [B, D] of the first two views, for auxiliary
    losses; from the trained encoder if it encodes the view. queue_update: detached tensors for `update_queue`.
    """

    loss: Tensor
    features: tuple[Tensor, Tensor]
    queue_update: tuple[Tensor, ...] = ()


def encode(backbone: nn.Module, x_VBCHW: Tensor, *, batched: bool = False) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] of the first two views.

    batched: encode both in one forward pass; the backbone's batch norms must then use groups of B samples.
    """
    if batched:
        first, second = backbone(x_VBCHW[:2].flatten(0, 1)).chunk(2)
        return first, second
    return backbone(x_VBCHW[0]), backbone(x_VBCHW[1])


@dataclass(frozen=True)
class BuildContext:
    """The arguments from which a method's module is built.

    backbone: the encoder; images [B, C, H, W] to pooled features [B, num_features]. num_classes: number of classes of
    the training photos, 0 without labels. sync: synchronised batch norm in heads. batched_views: encode both views in
    one forward pass. projector_type: class or function that builds projectors (CASSLE's are conditioned).
    """

    backbone: nn.Module
    num_features: int
    num_classes: int = 0
    sync: bool = False
    batched_views: bool = False
    projector_type: Callable[..., Projector] = Projector

    def projector(self, widths: list[int], *, hidden_norm: bool = True, last_norm: LastNorm = "none") -> Projector:
        """Builds a projector, conditioned on the augmentation if CASSLE is enabled; arguments as for `Projector`."""
        return self.projector_type(widths, hidden_norm=hidden_norm, last_norm=last_norm, sync=self.sync)


class MethodConfig:
    """Base class of the options of all methods; subclasses are frozen dataclasses."""

    title: ClassVar[str]
    """Display name of the method."""
    multi_crop: ClassVar[bool] = False
    """Whether the method takes local crops."""
    has_projector: ClassVar[bool] = True
    """Whether the method has a projector, which CASSLE can condition."""
    per_sample_loss: ClassVar[bool] = False
    """Whether the loss is a mean of per-sample losses, so that gradient accumulation is exact."""

    def check(self, batch_size: int) -> None:
        """Raises UsageError if the options do not fit the global batch size."""

    def build(self, context: BuildContext) -> "Method":
        """Builds the method's module, whose attribute `backbone` is `context.backbone`."""
        raise NotImplementedError


def at_least_one(options: MethodConfig, *names: str) -> None:
    """Raises UsageError if one of the named options is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            option = f"--method.{name.replace('_', '-')}"
            default = getattr(type(options), name, 1)
            raise UsageError(f"{option} must be at least 1, got {getattr(options, name)}; pass {option} {default}")


class Method(nn.Module):
    """Base class of the modules of all methods.

    context: its `backbone` becomes the attribute `backbone`.
    """

    backbone: nn.Module
    constant_lr: ClassVar[tuple[str, ...]] = ()
    """Names of submodules whose learning rate stays constant at its peak."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.backbone = context.backbone
        self.batched_views = context.batched_views

    def encode(self, backbone: nn.Module, views: Views) -> tuple[Tensor, Tensor]:
        """Pooled features [B, D] of both global views. backbone: the encoder or its EMA copy."""
        return encode(backbone, views.x_VBCHW, batched=self.batched_views)

    def forward(self, views: Views) -> Output:
        """The loss of a batch, and the features for auxiliary losses."""
        raise NotImplementedError

    def after_backward(self, global_step: int) -> None:
        """Called between the backward pass and the optimizer step, for example to drop gradients."""

    def after_optimizer_step(self) -> None:
        """Called right after the optimizer step, for example to normalise weights."""

    def update_ema(self, progress: float) -> None:
        """Updates the EMA (momentum) encoders. progress: fraction of the run that is done, in [0, 1]."""

    def update_queue(self, queue_update: tuple[Tensor, ...], progress: float) -> None:
        """Enqueues `Output.queue_update`. progress: fraction of the run that is done, in [0, 1]."""
