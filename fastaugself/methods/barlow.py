"""Barlow Twins (Zbontar 2021, arXiv 2103.03230).

Shape suffixes: B batch, E embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from ..training.distributed import sum_with_gradient, world_size
from .base import Method, Options, Output, Parts, Views, at_least_one, encode
from .cassle import Projector


@dataclass(frozen=True)
class BarlowTwins(Options):
    """Barlow Twins: the cross-correlation of both views' embeddings is drawn to the identity."""

    title = "Barlow Twins"

    dim: int = 8192
    """Width of all three layers of the projector."""
    redundancy: float = 0.0051
    """Weight of the off-diagonal elements."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim")
        if self.redundancy < 0:
            raise UsageError(f"--method.redundancy must be at least 0, got {self.redundancy}")

    def build(self, parts: Parts) -> "BarlowTwinsMethod":
        return BarlowTwinsMethod(self, parts)


class BarlowTwinsMethod(Method):
    """Encoder and a projector that ends with a batch norm without parameters."""

    def __init__(self, config: BarlowTwins, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.backbone = parts.backbone
        widths = [parts.num_features, *[config.dim] * 3]
        self.projector = Projector(widths, cassle=parts.cassle, last_norm="plain", sync=parts.sync)

    def forward(self, views: Views) -> Output:
        features = encode(self.backbone, views.x_VBCHW)
        z1, z2 = (self.projector(f, views.omega(v)).float() for v, f in enumerate(features))
        loss = redundancy_loss(z1, z2, self.config.redundancy)
        return Output(loss, (features[0], features[1]))


def redundancy_loss(z1_BE: Tensor, z2_BE: Tensor, weight: float) -> Tensor:
    """Squared distance of the batch's cross-correlation from the identity (eq. 1), over all processes.

    z1_BE, z2_BE: embeddings of zero mean and unit variance over the batch.
    """
    correlation_EE = sum_with_gradient(z1_BE.T @ z2_BE) / (len(z1_BE) * world_size())
    diagonal = torch.diagonal(correlation_EE)
    on = (diagonal - 1).square().sum()
    off = correlation_EE.square().sum() - diagonal.square().sum()
    return on + weight * off
