"""AugSelf: predict the difference of the augmentation parameters of two views (Lee et al. 2021, arXiv 2111.09613).

The heads see the backbone's pooled features of both views, in both orders. Both come from the encoder that is trained;
with MoCo, whose encoder sees view 1 alone, those of view 2 come from the key encoder, without a gradient.

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

# Width of each head's prediction, in the order in which losses are reported.
HEADS = {"crop": 4, "color": 4, "flip": 1, "blur": 1, "rotation": 4, "solarize": 1}


@dataclass(frozen=True)
class AugSelf:
    """Weights of the auxiliary losses; a head exists where its weight is above 0."""

    crop: float = 0.5
    """Difference of the crops' centres and sizes."""
    color: float = 0.5
    """Difference of the colour jitter's factors."""
    flip: float = 0.0
    """Whether both views have the same flip."""
    blur: float = 0.0
    """Difference of the blurs' sigmas."""
    rotation: float = 0.0
    """Difference of the rotations, as one of four classes; needs --view.rotation."""
    solarize: float = 0.0
    """Difference of the solarization thresholds; needs --view.solarize."""
    hidden: int = 512
    """Width of the two hidden layers of each head."""
    mode: Literal["published", "fixed"] = "published"
    """As published (blur differences in pixels, the solarize target broadcast over the batch) or with both fixed."""

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
        """The heads that exist, with their weights."""
        return {name: getattr(self, name) for name in HEADS if getattr(self, name) > 0}


class AugSelfLoss(nn.Module):
    """One MLP per augmentation on the concatenated backbone features of both views.

    heads: names of those that exist, in the order of `HEADS`.
    """

    def __init__(self, config: AugSelf, num_features: int, *, sync: bool = False) -> None:
        super().__init__()
        self.config = config
        self.heads = tuple(config.weights)
        if self.heads:
            outputs = [HEADS[name] for name in self.heads]
            self.mlps = ParallelMlps(2 * num_features, config.hidden, outputs, sync=sync)

    def predict(self, f1_BD: Tensor, f2_BD: Tensor) -> dict[str, Tensor]:
        """Raw predictions for (1, 2) in the first B rows and (2, 1) in the last B; tanh is part of the regression."""
        if not self.heads:
            return {}
        pairs = torch.cat([torch.cat([f1_BD, f2_BD], 1), torch.cat([f2_BD, f1_BD], 1)])
        return {name: raw.float() for name, raw in zip(self.heads, self.mlps(pairs), strict=True)}

    def forward(self, f1_BD: Tensor, f2_BD: Tensor, targets: tuple[Targets, Targets]) -> dict[str, Tensor]:
        """The loss of each head, unweighted, mean over both orders and all elements."""
        return self.losses(self.predict(f1_BD, f2_BD), targets)

    def baseline_losses(self, targets: tuple[Targets, Targets]) -> dict[str, Tensor]:
        """The losses of constant heads that always output zero (tanh 0, uniform class probabilities)."""
        rows = 2 * len(targets[0].crop_B4)
        device = targets[0].crop_B4.device
        return self.losses({name: torch.zeros(rows, HEADS[name], device=device) for name in self.heads}, targets)

    def losses(self, predictions: dict[str, Tensor], targets: tuple[Targets, Targets]) -> dict[str, Tensor]:
        """The losses of given raw predictions, rows ordered as `predict` orders them."""
        ab, ba = targets
        losses = {}
        for name, prediction in predictions.items():
            if name == "rotation":
                losses[name] = F.cross_entropy(prediction, torch.cat([ab.rotation_B, ba.rotation_B]))
            elif name == "flip":
                target = torch.cat([ab.flip_B1, ba.flip_B1])
                losses[name] = F.binary_cross_entropy_with_logits(prediction, target)
            elif name == "solarize" and self.config.mode == "published":
                # The published code compares [2B, 1] with [2B]: every prediction with every target.
                target = torch.cat([ab.solarize_B1, ba.solarize_B1])
                losses[name] = (torch.tanh(prediction) - target.T).square().mean()
            else:
                field = {"crop": "crop_B4", "color": "color_B4", "blur": "blur_B1", "solarize": "solarize_B1"}[name]
                target = torch.cat([getattr(ab, field), getattr(ba, field)])
                losses[name] = F.mse_loss(torch.tanh(prediction), target)
        return losses
