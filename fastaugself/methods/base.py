"""Interface of the base methods: options (`MoCo`, a frozen dataclass) and a module (`MoCoMethod`, an nn.Module).

The options have the method's name because recipes and the command line use them; `options.build(context)` builds the
module. A new method is one file with both classes (docs/new-method.md).

Shape suffixes: V views, L local crops, B batch, C channels, H W, P parameter columns, D features, n condition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..models.heads import Activation, LastNorm, Predictor, Projector
from ..models.inner import InnerFeatures, forward_inner
from .parts import combine, split_views, stitched


class ExtraViews(NamedTuple):
    """Further views of the batch, made because an aware objective asks for them (`ViewRequest`).

    x_VBCHW: views. params_VBP: their augmentation parameters. sizes_B2: (height, width) of the photos. condition_VBn:
    as in `Views`. B is the number of photos times the number of copies, with the copies of a photo next to each other.
    """

    x_VBCHW: Tensor
    params_VBP: Tensor
    sizes_B2: Tensor
    condition_VBn: Tensor | None = None

    def condition(self, view: int) -> Tensor | None:
        """The condition [B, n] of one view, or None."""
        return None if self.condition_VBn is None else self.condition_VBn[view]


class Views(NamedTuple):
    """The input of a method's forward pass.

    x_VBCHW: the two global views. labels_B: int64 classes, -1 if unknown. condition_VBn: descriptors of each view
    (global views first, then local crops), or None if the projector is not conditioned. local_LBCHW: local crops
    (multi-crop), at a smaller size, or None. params_VBP: augmentation parameters of the global views, float32, columns
    as in `fastaugself_kernels.COLUMNS`. sizes_B2: int32 (height, width) of the decoded photos. extra: further views
    that aware objectives ask for. inner: collects features of inner layers while the method encodes the global views.
    """

    x_VBCHW: Tensor
    labels_B: Tensor
    condition_VBn: Tensor | None = None
    local_LBCHW: Tensor | None = None
    params_VBP: Tensor | None = None
    sizes_B2: Tensor | None = None
    extra: tuple[ExtraViews, ...] = ()
    inner: InnerFeatures | None = None

    def condition(self, view: int) -> Tensor | None:
        """The condition [B, n] of one view, or None."""
        return None if self.condition_VBn is None else self.condition_VBn[view]


class Output(NamedTuple):
    """The output of a method's forward pass.

    loss: scalar to differentiate. features: pooled backbone features [B, D] of the first two views, for auxiliary
    losses; from the trained encoder if it encodes the view. queue_update: detached tensors for `update_queue`.
    metrics: further scalars by name, such as the terms of the loss, for the log, metrics.jsonl and the report; the
    same names in every step.
    """

    loss: Tensor
    features: tuple[Tensor, Tensor]
    queue_update: tuple[Tensor, ...] = ()
    metrics: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class BuildContext:
    """The arguments from which a method's module is built.

    backbone: the encoder; images [B, C, H, W] to pooled features [B, num_features]. num_classes: number of classes of
    the training photos, 0 without labels. sync: synchronised batch norm in heads. batched_views: encode both views in
    one forward pass. projector_type, predictor_type: class or function that builds projectors (CASSLE's are
    conditioned on the augmentation) and predictors.
    """

    backbone: nn.Module
    num_features: int
    num_classes: int = 0
    sync: bool = False
    batched_views: bool = False
    projector_type: Callable[..., Projector] = Projector
    predictor_type: Callable[..., Predictor] = Predictor

    def projector(
        self,
        widths: list[int],
        *,
        hidden_norm: bool = True,
        last_norm: LastNorm = "none",
        activation: Activation = "relu",
    ) -> Projector:
        """Builds a projector, conditioned on the augmentation if CASSLE is enabled; arguments as for `Projector`."""
        return self.projector_type(
            widths, hidden_norm=hidden_norm, last_norm=last_norm, sync=self.sync, activation=activation
        )

    def predictor(self, widths: list[int], *, last_norm: LastNorm = "none", sync: bool = False) -> Predictor:
        """Builds a predictor, conditioned on the relative augmentation if that is enabled; arguments as for `mlp`."""
        return self.predictor_type(widths, last_norm=last_norm, sync=sync)


class MethodConfig:
    """Base class of the options of all methods; subclasses are frozen dataclasses."""

    title: ClassVar[str]
    """Display name of the method."""
    multi_crop: ClassVar[bool] = False
    """Whether the method takes local crops."""
    has_projector: ClassVar[bool] = True
    """Whether the method has a projector, which CASSLE can condition."""
    has_predictor: ClassVar[bool] = False
    """Whether the method builds its predictor with `BuildContext.predictor`."""
    per_sample_loss: ClassVar[bool] = False
    """Whether the loss is a mean of per-sample losses, so that gradient accumulation is exact."""
    needs_labels: ClassVar[bool] = False
    """Whether every photo needs a label."""

    def check(self, batch_size: int) -> None:
        """Raises UsageError if the options do not fit the global batch size."""

    def build(self, context: BuildContext) -> "Method":
        """Builds the method's module, whose attribute `backbone` is `context.backbone`."""
        raise NotImplementedError


def above_zero(options: MethodConfig, *names: str) -> None:
    """Raises UsageError if one of the named options is not above 0."""
    for name in names:
        value = getattr(options, name)
        if not value > 0:
            option = f"--method.{name.replace('_', '-')}"
            raise UsageError(f"{option} must be above 0, got {value}; pass {option} {getattr(type(options), name)}")


def in_unit_interval(options: MethodConfig, *names: str) -> None:
    """Raises UsageError if one of the named options is not in [0, 1]."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1:
            option = f"--method.{name.replace('_', '-')}"
            raise UsageError(f"{option} must be in [0, 1], got {value}; pass {option} {getattr(type(options), name)}")


def at_least_one(options: MethodConfig, *names: str) -> None:
    """Raises UsageError if one of the named options is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            option = f"--method.{name.replace('_', '-')}"
            default = getattr(type(options), name, 1)
            raise UsageError(f"{option} must be at least 1, got {getattr(options, name)}; pass {option} {default}")


def crop_pairs(crops: int) -> list[tuple[int, int]]:
    """Pairs (target, other) of multi-crop: each global view, 0 and 1, with every other crop.

    crops: number of global views and local crops. A local crop is never a target (Caron 2020, arXiv 2006.09882).
    """
    return [(target, other) for target in (0, 1) for other in range(crops) if other != target]


def mean_over_pairs(loss: Callable[[int, int], Tensor], crops: int) -> Tensor:
    """Mean of `loss(target, other)` over `crop_pairs(crops)`."""
    return torch.stack([loss(target, other) for target, other in crop_pairs(crops)]).mean()


class Method(nn.Module):
    """Base class of the modules of all methods.

    context: its `backbone` becomes the attribute `backbone`.
    """

    backbone: nn.Module
    encodes_both_views: ClassVar[bool] = True
    """Whether the encoder sees both views; in MoCo view 2 is seen by the momentum encoder only."""
    constant_lr: ClassVar[tuple[str, ...]] = ()
    """Names of submodules whose learning rate stays constant at its peak."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.backbone = context.backbone
        self.batched_views = context.batched_views

    @property
    def momentum_backbone(self) -> nn.Module | None:
        """The EMA copy of the encoder, if the method has one."""
        return None

    def encode(self, backbone: nn.Module, views: Views) -> tuple[Tensor, Tensor]:
        """Pooled features [B, D] of both global views. backbone: the encoder or its EMA copy."""
        if not self.batched_views:
            return self.encode_view(backbone, views, 0), self.encode_view(backbone, views, 1)
        # One forward pass; batch norms have groups of B samples.
        f_SD, maps = forward_inner(backbone, views.x_VBCHW.flatten(0, 1), self._layers(backbone, views))
        first, second = f_SD.chunk(2)
        if views.inner is not None and maps:
            for view in (0, 1):
                views.inner.maps[view] = {name: x.chunk(2)[view] for name, x in maps.items()}
        return first, second

    def encode_view(self, backbone: nn.Module, views: Views, view: int) -> Tensor:
        """Pooled features [B, D] of one global view, 0 or 1. backbone: the encoder or its EMA copy."""
        f_BD, maps = forward_inner(backbone, views.x_VBCHW[view], self._layers(backbone, views))
        if views.inner is not None and maps:
            views.inner.maps[view] = maps
        return f_BD

    def encode_queries(self, views: Views, view: int, split: int) -> tuple[Tensor, Tensor]:
        """Features [B, D] of a global view by the trained encoder, and what the projector makes queries of, [S, D].

        Both are the same for split 1. Otherwise the view is cut in split x split parts, all in one forward pass: the
        features are the mean of the parts, the queries' the mean of every pair, B rows apart (Fast-MoCo). Feature maps
        of inner layers are those of the parts, put together again.
        """
        if split == 1:
            f_BD = self.encode_view(self.backbone, views, view)
            return f_BD, f_BD
        layers = self._layers(self.backbone, views)
        f_SD, maps = forward_inner(self.backbone, split_views(views.x_VBCHW[view], split), layers)
        if views.inner is not None and maps:
            views.inner.maps[view] = {name: stitched(map_SCHW, split) for name, map_SCHW in maps.items()}
        parts = f_SD.chunk(split * split)
        return torch.stack(parts).mean(0), torch.cat(combine(parts))

    def encode_crops(self, views: Views) -> list[Tensor]:
        """Pooled features [B, D] of both global views, then of the local crops, by the trained encoder."""
        return [*self.encode(self.backbone, views), *self.encode_local(self.backbone, views)]

    def encode_local(self, backbone: nn.Module, views: Views) -> list[Tensor]:
        """Pooled features [B, D] of each local crop, each with its own batch statistics; [] without local crops."""
        x_LBCHW = views.local_LBCHW
        if x_LBCHW is None:
            return []
        if self.batched_views:
            return list(backbone(x_LBCHW.flatten(0, 1)).chunk(len(x_LBCHW)))
        return [backbone(x_BCHW) for x_BCHW in x_LBCHW]

    def _layers(self, backbone: nn.Module, views: Views) -> tuple[str, ...]:
        """Inner layers to collect: of the encoder, and of an EMA copy where the encoder does not see all views."""
        if views.inner is None or (self.encodes_both_views and backbone is not self.backbone):
            return ()
        return views.inner.layers

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
