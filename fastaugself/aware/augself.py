"""AugSelf: predict the difference of the augmentation parameters of two views (Lee et al. 2021, arXiv 2111.09613).

The heads take the backbone's pooled features of both views, in both orders. Features come from the trained encoder.
MoCo encodes only view 1 with it, so there the features of view 2 come from the key encoder, without a gradient.

Shape suffixes: B batch, D features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import Targets

from ..errors import UsageError
from ..models.heads import ParallelMlps

# Output width of each head, in the order in which losses are reported.
HEADS = {"crop": 4, "color": 4, "flip": 1, "blur": 1, "rotation": 4, "solarize": 1}
# The heads that regress a difference, with their field of `Targets`; the others classify.
REGRESSED = {"crop": "crop_B4", "color": "color_B4", "blur": "blur_B1", "solarize": "solarize_B1"}


@dataclass(frozen=True)
class AugSelf:
    """Weights of the auxiliary AugSelf losses; a weight of 0 removes the head."""

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

    @property
    def weights(self) -> dict[str, float]:
        """Loss weights of the enabled heads, by name."""
        return {name: getattr(self, name) for name in HEADS if getattr(self, name) > 0}


class AugSelfLoss(nn.Module):
    """The AugSelf loss: one MLP head per augmentation on the concatenated backbone features of both views.

    num_features: width of the backbone features. sync: synchronised batch norm in the heads. The attribute `heads` has
    the names of the enabled heads, in the order of `HEADS`.
    """

    def __init__(self, config: AugSelf, num_features: int, *, sync: bool = False) -> None:
        super().__init__()
        self.config = config
        self.heads = tuple(config.weights)
        if self.heads:
            outputs = [HEADS[name] for name in self.heads]
            self.mlps = ParallelMlps(2 * num_features, config.hidden, outputs, sync=sync)

    def predict(self, f1_BD: Tensor, f2_BD: Tensor) -> dict[str, Tensor]:
        """Raw head outputs [2B, width] by name, before tanh: (1, 2) in the first B rows, (2, 1) in the last B.

        f1_BD, f2_BD: backbone features of views 1 and 2.
        """
        if not self.heads:
            return {}
        pairs = torch.cat([torch.cat([f1_BD, f2_BD], 1), torch.cat([f2_BD, f1_BD], 1)])
        return {name: raw.float() for name, raw in zip(self.heads, self.mlps(pairs), strict=True)}

    def forward(self, f1_BD: Tensor, f2_BD: Tensor, targets: tuple[Targets, Targets]) -> dict[str, Tensor]:
        """The unweighted loss of each head by name, mean over both orders and all elements.

        f1_BD, f2_BD: backbone features. targets: of (1, 2) and (2, 1), from `augself_targets`.
        """
        return self.losses(self.predict(f1_BD, f2_BD), targets)

    def baseline_losses(self, targets: tuple[Targets, Targets]) -> dict[str, Tensor]:
        """Baseline losses: those of constant heads that always output zero (tanh 0, uniform class probabilities)."""
        rows = 2 * len(targets[0].crop_B4)
        device = targets[0].crop_B4.device
        return self.losses({name: torch.zeros(rows, HEADS[name], device=device) for name in self.heads}, targets)

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
