"""SEN: predict one view's embedding from the other's and the difference of their parameters.

The idea of symmetric embedding networks (Park et al. 2022, arXiv 2204.11371), in the form in which STL's and seq-JEPA's
authors use it as a baseline of methods for images (arXiv 2501.08712, 2505.03176). With embeddings z_v = p(h_v) and
standardised parameters a_v:

    L = weight * 1/2 [NT-Xent(g([z_1; a_2 - a_1]), z_2) + NT-Xent(g([z_2; a_1 - a_2]), z_1)]

Usually trained alone (`--sen.only`).

Shape suffixes: V views, B batch, D features, E embedding, n descriptor columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..methods.simclr import nt_xent
from ..models.heads import mlp
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    above_zero,
    at_least,
    register_aware,
    uniform_contrast,
)
from .descriptors import Descriptors, check_parts, varied

INCLUDE = ("blur", "color", "crop", "flip", "grayscale")


@register_aware("sen")
@dataclass(frozen=True)
class SEN(AwareConfig):
    """SEN: predict one view's embedding from the other's and the difference of their parameters."""

    title = "SEN"

    weight: float = 1.0
    """Weight of the loss; 0 = off."""
    temperature: float = 0.2
    """Temperature of the NT-Xent loss."""
    hidden: int = 2048
    """Width of the hidden layers of projector and predictor."""
    dim: int = 128
    """Width of the embedding."""
    include: tuple[str, ...] = INCLUDE
    """Parameters that the predictor reads: blur, color, crop, flip, grayscale, jitter, order, rotation, solarize."""
    only: bool = False
    """Train on this loss alone, without the base method's loss."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        above_zero(self, "temperature")
        at_least(self, 1, "hidden", "dim")
        check_parts("--sen.include", self.include, INCLUDE)

    def augmentations(self) -> dict[str, str]:
        return varied("--sen.include", self.include)

    def build(self, context: AwareContext) -> "SENObjective":
        return SENObjective(self, context)


class SENObjective(AwareObjective):
    """Projector, and a predictor that reads the difference of the parameters."""

    config: SEN

    def __init__(self, config: SEN, context: AwareContext) -> None:
        super().__init__(config)
        self.batch_size = context.batch_size
        self.descriptors = Descriptors(config.include, context.policies[0])
        self.projector = mlp([context.num_features, config.hidden, config.dim], sync=context.sync)
        self.predictor = mlp([config.dim + self.descriptors.width, config.hidden, config.dim], sync=context.sync)

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """NT-Xent in both directions, and by how much a prediction is closer to the view than the other view is."""
        a1, a2 = self.descriptors(inputs.params_VBP, inputs.sizes_B2)
        z1, z2 = (self.embed_view(f_BD) for f_BD in inputs.features)
        p2, p1 = self.predict_view(z1, a1, a2), self.predict_view(z2, a2, a1)
        pairs = [(p2, z2), (p1, z1)]
        losses = [
            nt_xent(F.normalize(p, dim=1), F.normalize(z, dim=1), self.config.temperature, gather=True)
            for p, z in pairs
        ]
        with torch.no_grad():
            gain = torch.stack([F.cosine_similarity(p, z).mean() for p, z in pairs]).mean()
            gain = gain - F.cosine_similarity(z1, z2).mean()
        return AwareOutput({"sen": (losses[0] + losses[1]) / 2}, {"sen_gain": gain})

    def embed_view(self, f_BD: Tensor) -> Tensor:
        """Embeddings [B, E] of features."""
        return self.projector(f_BD).float()

    def predict_view(self, z_BE: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        """Predicted embeddings [B, E] of views with parameters a_to_Bn, from those with parameters a_from_Bn."""
        return self.predictor(torch.cat([z_BE, a_to_Bn - a_from_Bn], 1)).float()

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """NT-Xent of equal embeddings."""
        return {"sen": uniform_contrast(self.batch_size, params_VBP)}
