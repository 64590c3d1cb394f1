"""Barlow Twins (Zbontar 2021, arXiv 2103.03230).

Shape suffixes: B batch, E embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..distributed import sum_with_gradient, world_size
from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views, at_least_one, mean_over_pairs


@dataclass(frozen=True)
class BarlowTwins(MethodConfig):
    """Barlow Twins: the cross-correlation matrix of both views' embeddings is pushed towards the identity."""

    title = "Barlow Twins"
    multi_crop = True

    dim: int = 8192
    """Width of the three layers of the projector."""
    redundancy: float = 0.0051
    """Weight of the off-diagonal elements."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim")
        if self.redundancy < 0:
            raise UsageError(
                f"--method.redundancy must be at least 0, got {self.redundancy}; pass "
                f"--method.redundancy {BarlowTwins.redundancy}"
            )

    def build(self, context: BuildContext) -> "BarlowTwinsMethod":
        return BarlowTwinsMethod(self, context)


class BarlowTwinsMethod(Method):
    """Encoder, and a projector whose last batch norm has no affine parameters."""

    def __init__(self, config: BarlowTwins, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        widths = [context.num_features, *[config.dim] * 3]
        self.projector = context.projector(widths, last_norm="plain")

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        z = [self.projector(f, views.condition(v)).float() for v, f in enumerate(features)]
        weight = self.config.redundancy
        both = redundancy_loss(z[0], z[1], weight)  # symmetric, so computed once for both orders
        loss = mean_over_pairs(lambda a, b: both if b < 2 else redundancy_loss(z[a], z[b], weight), len(z))
        return Output(loss, (features[0], features[1]))


def redundancy_loss(z1_BE: Tensor, z2_BE: Tensor, weight: float) -> Tensor:
    """Barlow Twins loss: weighted squared distance of the cross-correlation matrix from the identity (eq. 1).

    z1_BE, z2_BE: embeddings with zero mean and unit variance over the batch; the correlation is over all processes.
    weight: of the off-diagonal elements.
    """
    with torch.autocast(z1_BE.device.type, enabled=False):  # autocast would round the correlations
        correlation_EE = sum_with_gradient(z1_BE.T @ z2_BE) / (len(z1_BE) * world_size())
    diagonal = torch.diagonal(correlation_EE)
    on = (diagonal - 1).square().sum()
    off = correlation_EE.square().sum() - diagonal.square().sum()
    return on + weight * off
