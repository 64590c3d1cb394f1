"""CARE: the same augmentation moves all photos alike, so it must not change the angles between them (Gupta et al. 2023,
arXiv 2306.13924).

Two further views of every photo have the same parameters within a chunk of photos, in each view its own. With their
L2-normalised embeddings z1, z2 from the base method's projector:

    L = L_base + weight * mean over chunks of  2 * mean_i sum_j (<z1_i, z1_j> - <z2_i, z2_j>)^2

A map that preserves all angles is orthogonal: views differ by a rotation of the sphere. Published: weight 0.01 (0.005
on ImageNet-100), 8 chunks of a batch, base InfoNCE at temperature 0.5. The encoder sees four views instead of two.
Here the option is the size of a chunk, 32 for the published batch of 256, so that a chunk is the same photos on any
number of processes. Crops are equal as fractions of each photo. If the global views have two policies (BYOL), the
further views have one each, and if the method has a momentum encoder, both go through the trained one.

Shape suffixes: B batch, C chunks, N samples of a chunk, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastaugself_kernels import ViewPolicy

from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    Share,
    ViewRequest,
    at_least,
    register_aware,
)

EVERYTHING = ("crop", "flip", "rotation", "color", "grayscale", "blur", "solarize")


@register_aware("care")
@dataclass(frozen=True)
class CARE(AwareConfig):
    """CARE: an augmentation that photos share does not change the angles between them."""

    title = "CARE"
    needs_projector = True

    weight: float = 0.01
    """Weight of the loss; 0 = off. Published: 0.01, and 0.005 on ImageNet-100. A weight near 1 pulls all photos
    together: watch care_similarity."""
    chunk: int = 32
    """Number of photos that share an augmentation; it divides the batch of a process. Published: an eighth of the
    batch."""
    only: bool = False
    """Not possible for CARE, which needs the projector of a base method."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        at_least(self, 2, "chunk")

    def requests(self, policies: tuple[ViewPolicy, ViewPolicy]) -> tuple[ViewRequest, ...]:
        share = Share(self.chunk, EVERYTHING)
        if policies[0] == policies[1]:
            return (ViewRequest(policies[0], count=2, share=share),)
        return tuple(ViewRequest(policy, share=share) for policy in policies)

    def build(self, context: AwareContext) -> "CAREObjective":
        return CAREObjective(self)


class CAREObjective(AwareObjective):
    """The loss on the embeddings of the base method; it has no weights of its own."""

    config: CARE

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The loss, and the mean cosine similarity of different photos under the same augmentation (1 = collapsed)."""
        projector = inputs.method.get_submodule("projector")
        embeddings = []
        for extra in inputs.extra:
            if extra.features_VBD is None:
                raise ValueError("CARE needs the features of its views")
            for view, f_BD in enumerate(extra.features_VBD):
                z_BE = F.normalize(projector(f_BD, extra.views.condition(view)).float(), dim=1)
                embeddings.append(z_BE.unflatten(0, (-1, self.config.chunk)))
        first_CNE, second_CNE = embeddings
        with torch.autocast(first_CNE.device.type, enabled=False):
            a_CNN, b_CNN = (z_CNE @ z_CNE.mT for z_CNE in (first_CNE, second_CNE))
        loss = 2 * (a_CNN - b_CNN).square().sum(2).mean()
        N = self.config.chunk
        similarity = (a_CNN.detach().sum((1, 2)) - N).mean() / (N * (N - 1))
        return AwareOutput({"care": loss}, {"care_similarity": similarity})

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """None: embeddings that are all equal have a loss of 0."""
        return {}
