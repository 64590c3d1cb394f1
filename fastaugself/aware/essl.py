"""E-SSL: predict the rotation of a small view (Dangovski et al. 2022, arXiv 2111.00899).

Every photo gives one small view in four rotations. A head on the encoder's features classifies the rotation; the
features become equivariant to rotation, while the base method keeps its own views:

    L = L_base + weight * mean over 4B of CE(head(f(rot90(s, k))), k),   k = 0..3

Published weights: 0.4 with SimCLR (ResNet-50, ImageNet-1k), 0.08 with SimSiam. The four rotations of a photo are next
to each other in the encoder's input, so that no group of batch statistics holds only one rotation.

Shape suffixes: B batch, D features.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    ViewRequest,
    at_least,
    register_aware,
)

TURNS = (0, 1, 2, 3)


@register_aware("essl")
@dataclass(frozen=True)
class ESSL(AwareConfig):
    """E-SSL: classify the rotation (0, 90, 180 or 270 degrees) of a small view."""

    title = "E-SSL"
    per_sample_loss = True

    weight: float = 0.4
    """Weight of the rotation loss; 0 = off. Published: 0.4 with SimCLR, 0.08 with SimSiam."""
    view: ViewPolicy = field(default_factory=lambda: ViewPolicy(size=96, scale=(0.05, 0.14), blur=0.1))
    """Augmentation of the small view; its rotation is set by the method."""
    hidden: int = 2048
    """Width of the two hidden layers of the head."""
    dim: int = 128
    """Width of the head's third layer; 256 with SimSiam."""
    only: bool = False
    """Train on the rotation loss alone, without the base method's loss."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        at_least(self, 1, "hidden", "dim")
        if self.view.rotation:
            raise UsageError(
                f"--essl.view.rotation must be 0, got {self.view.rotation:g}: E-SSL rotates the small view itself; "
                "pass --essl.view.rotation 0"
            )

    def requests(self, policies: tuple[ViewPolicy, ViewPolicy]) -> tuple[ViewRequest, ...]:
        return (ViewRequest(self.view, copies=TURNS),)

    def build(self, context: AwareContext) -> "ESSLObjective":
        return ESSLObjective(self, context.num_features)


class ESSLObjective(AwareObjective):
    """The rotation head. num_features: width of the encoder's features."""

    def __init__(self, config: ESSL, num_features: int) -> None:
        super().__init__(config)
        widths = (num_features, config.hidden, config.hidden, config.dim)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU(inplace=True)]
        # The published head has no ReLU before the classifier.
        self.head = nn.Sequential(*layers[:-1], nn.Linear(config.dim, len(TURNS)))

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """Cross entropy and accuracy of the rotation, means over all copies."""
        features_VBD = inputs.extra[0].features_VBD
        if features_VBD is None:
            raise ValueError("E-SSL needs the features of its small views")
        logits = self.head(features_VBD[0]).float()
        turns = torch.arange(len(TURNS), device=logits.device).repeat(len(logits) // len(TURNS))
        accuracy = (logits.detach().argmax(1) == turns).float().mean()
        return AwareOutput({"essl": F.cross_entropy(logits, turns)}, {"essl_accuracy": accuracy})

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """Cross entropy of equal probabilities: log 4."""
        return {"essl": params_VBP.new_tensor(float(len(TURNS))).log()}
