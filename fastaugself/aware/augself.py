"""AugSelf: predict the difference of the augmentation parameters of two views (Lee et al. 2021, arXiv 2111.09613).

The heads take the backbone's pooled features of both views, in both orders. Features come from the trained encoder.
MoCo encodes only view 1 with it, so there the features of view 2 come from the key encoder, without a gradient.

With `layer` the heads take the features of an inner layer, pooled over positions: on a ViT-S/16 with MoCo v3, moving
the loss from the last block to the third raised ImageNet-1k linear accuracy from 67.55 to 68.23 % in the measurements
of SER's authors (ICLR 2026, arXiv 2603.06693); without AugSelf it was 68.44 %.

Shape suffixes: V views, B batch, P parameter columns, D features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import Targets, ViewPolicy, augself_targets

from ..errors import UsageError
from ..methods.base import Method
from ..models.heads import ParallelMlps
from ..models.inner import check_layers, forward_inner, pooled
from .base import AwareConfig, AwareContext, AwareInputs, AwareObjective, AwareOutput, Setting, register_aware

# Output width of each head, in the order in which losses are reported.
HEADS = {"crop": 4, "color": 4, "flip": 1, "blur": 1, "rotation": 4, "solarize": 1}
# The heads that regress a difference, with their field of `Targets`; the others classify.
REGRESSED = {"crop": "crop_B4", "color": "color_B4", "blur": "blur_B1", "solarize": "solarize_B1"}


@register_aware("augself")
@dataclass(frozen=True)
class AugSelf(AwareConfig):
    """Weights of the auxiliary AugSelf losses; a weight of 0 removes the head."""

    title = "AugSelf"

    crop: float = 0.5
    """Loss weight of predicting the difference of crop centres and sizes."""
    color: float = 0.5
    """Loss weight of predicting the difference of colour jitter factors."""
    flip: float = 0.0
    """Loss weight of predicting whether both views have the same flip."""
    blur: float = 0.0
    """Loss weight of predicting the difference of blur sigmas."""
    rotation: float = 0.0
    """Loss weight of predicting the rotation difference (four classes); needs --view.rotation."""
    solarize: float = 0.0
    """Loss weight of predicting the difference of solarize thresholds; needs --view.solarize."""
    hidden: int = 512
    """Width of the two hidden layers of each head."""
    mode: Literal["published", "fixed"] = "published"
    """The published code (blur differences in pixels, solarize targets broadcast over the batch), or both fixed."""
    layer: str = "last"
    """Layer whose features the heads take: last (the pooled features, as published), layer1 to layer4 of a ResNet, or
    block1, block2, ... of a ViT."""
    only: bool = False
    """Train on these losses alone, without the base method's loss, heads and queue."""

    def __post_init__(self) -> None:
        for name in HEADS:
            if getattr(self, name) < 0:
                raise UsageError(
                    f"--augself.{name} must be at least 0, got {getattr(self, name)}; pass --augself.{name} 0"
                )
        if self.hidden < 1:
            raise UsageError(
                f"--augself.hidden must be at least 1, got {self.hidden}; pass --augself.hidden {AugSelf.hidden}"
            )

    @classmethod
    def off(cls) -> "AugSelf":
        return cls(crop=0.0, color=0.0)

    @property
    def per_sample_loss(self) -> bool:  # type: ignore[override]
        """False with the published solarize loss, which compares every prediction with every target."""
        return self.solarize == 0 or self.mode == "fixed"

    @property
    def weights(self) -> dict[str, float]:
        """Loss weights of the enabled heads, by name."""
        return {name: getattr(self, name) for name in HEADS if getattr(self, name) > 0}

    def augmentations(self) -> dict[str, str]:
        return {name: f"--augself.{name} {weight:g}" for name, weight in self.weights.items()}

    @property
    def layers(self) -> tuple[str, ...]:
        return () if self.layer == "last" else (self.layer,)

    def check_backbone(self, backbone: nn.Module, setting: Setting) -> None:
        check_layers(backbone, self.layers, "--augself.layer", "--augself.layer last")

    def build(self, context: AwareContext) -> "AugSelfLoss":
        width = context.num_features if self.layer == "last" else context.layer_widths[self.layer]
        return AugSelfLoss(self, width, policies=context.policies, sync=context.sync)


class AugSelfLoss(AwareObjective):
    """The AugSelf loss: one MLP head per augmentation on the concatenated features of both views.

    num_features: width of the features. policies: of the two global views. sync: synchronised batch norm in the heads.
    The attribute `heads` has the names of the enabled heads, in the order of `HEADS`.
    """

    config: AugSelf

    def __init__(
        self,
        config: AugSelf,
        num_features: int,
        *,
        policies: tuple[ViewPolicy, ViewPolicy] = (ViewPolicy(), ViewPolicy()),
        sync: bool = False,
    ) -> None:
        super().__init__(config)
        self.policies = policies
        self.heads = tuple(config.weights)
        if self.heads:
            outputs = [HEADS[name] for name in self.heads]
            self.mlps = ParallelMlps(2 * num_features, config.hidden, outputs, sync=sync)

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The loss of each head, mean over both orders and all elements."""
        features = inputs.features
        if self.config.layer != "last":
            first, second = (pooled(maps[self.config.layer]) for maps in inputs.inner)
            features = (first, second)
        targets = self.targets(inputs.params_VBP, inputs.sizes_B2)
        return AwareOutput(self.losses(self.predict(*features), targets))

    def targets(self, params_VBP: Tensor, sizes_B2: Tensor) -> tuple[Targets, Targets]:
        """The targets of (1, 2) and (2, 1)."""
        return augself_targets(params_VBP, sizes_B2, self.policies, mode=self.config.mode)

    def encode(self, method: Method, x_BCHW: Tensor, view: int) -> Tensor:
        """The features [B, D] that the heads take of one view, 0 or 1, from the encoder that sees it in training."""
        backbone = method.backbone
        if view == 1 and not method.encodes_both_views and method.momentum_backbone is not None:
            backbone = method.momentum_backbone
        f_BD, maps = forward_inner(backbone, x_BCHW, self.config.layers)
        return pooled(maps[self.config.layer]) if maps else f_BD

    def predict(self, f1_BD: Tensor, f2_BD: Tensor) -> dict[str, Tensor]:
        """Raw head outputs [2B, width] by name, before tanh: (1, 2) in the first B rows, (2, 1) in the last B.

        f1_BD, f2_BD: backbone features of views 1 and 2.
        """
        if not self.heads:
            return {}
        pairs = torch.cat([torch.cat([f1_BD, f2_BD], 1), torch.cat([f2_BD, f1_BD], 1)])
        return {name: raw.float() for name, raw in zip(self.heads, self.mlps(pairs), strict=True)}

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """Losses of constant heads that always output zero (tanh 0, uniform class probabilities)."""
        rows, device = 2 * params_VBP.shape[1], params_VBP.device
        zeros = {name: torch.zeros(rows, HEADS[name], device=device) for name in self.heads}
        return self.losses(zeros, self.targets(params_VBP, sizes_B2))

    def losses(self, predictions: dict[str, Tensor], targets: tuple[Targets, Targets]) -> dict[str, Tensor]:
        """The unweighted losses of raw predictions, with rows in the order of `predict`."""
        ab, ba = targets
        losses = {}
        for name, prediction in predictions.items():
            if name == "rotation":
                losses[name] = F.cross_entropy(prediction, torch.cat([ab.rotation_B, ba.rotation_B]))
            elif name == "flip":
                target = torch.cat([ab.flip_B1, ba.flip_B1])
                losses[name] = F.binary_cross_entropy_with_logits(prediction, target)
            elif name == "solarize" and self.config.mode == "published":
                # The published code broadcasts [2B, 1] with [2B], which compares every prediction with every target.
                target = torch.cat([ab.solarize_B1, ba.solarize_B1])
                losses[name] = (torch.tanh(prediction) - target.T).square().mean()
            else:
                target = torch.cat([getattr(t, REGRESSED[name]) for t in targets])
                losses[name] = F.mse_loss(torch.tanh(prediction), target)
        return losses
