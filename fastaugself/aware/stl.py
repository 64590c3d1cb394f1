"""STL: transformations are learned from pairs of photos that share them (Yu et al. 2024, arXiv 2501.08712).

Photos 2i and 2i + 1 share crop, colour jitter and gray in each view; flip and blur are their own. No parameter enters
the loss, only the sharing does. With features h_1, h_2 of both views, the transformation seen between them is
t12 = tau([h_1; h_2]), t21 = tau([h_2; h_1]), and the one of the partner pi(i) must move a photo's own features:

    hhat_1,i = W(t21_pi(i)) h_2,i,      hhat_2,i = W(t12_pi(i)) h_1,i
    L = L_base + weight * NT-Xent(p([h_1; h_2]), p([hhat_1; hhat_2]))
               + weight * transform_weight * NT-Xent(q([t12; t21] of even photos), q([t12; t21] of odd photos))

W(t) is a D x D matrix made by a linear hypernetwork; published with SimCLR as the base, temperature 0.2, and
transform_weight 0.1. It has 128 D^2 weights: 33.6 million for a ResNet-18 (D = 512), 537 million for a ResNet-50. With
`rank` r it is instead W(t) = I + sum_k t_k U_k V_k^T of rank r per component, this project's own form, with 256 r D
weights: 1.0 and 4.2 million with r = 8.

As published, a photo and its partner may be flipped differently, so half of the pairs share a transformation only up to
a flip. Other than in the published code, which makes pairs in its data set, the photos of a pair are neighbours in the
batch, and their crops are equal as fractions of each photo, rounded to pixels.

Shape suffixes: B batch, S samples of both views, D features, T transformation, R rank, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import gather_with_gradient, rank
from ..methods.simclr import nt_xent
from ..models.heads import mlp
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    Share,
    above_zero,
    at_least,
    register_aware,
    uniform_contrast,
)

WIDTH = 128  # of the transformation


@register_aware("stl")
@dataclass(frozen=True)
class STL(AwareConfig):
    """STL: the transformation seen between the views of one photo moves the features of another that shares it."""

    title = "STL"

    weight: float = 1.0
    """Weight of the equivariance loss; 0 = off."""
    transform_weight: float = 0.1
    """Weight of the loss that makes equal transformations equal, relative to `weight`."""
    temperature: float = 0.2
    """Temperature of both NT-Xent losses."""
    hidden: int = 512
    """Width of the hidden layer of the head on features."""
    dim: int = 128
    """Width of its embedding."""
    rank: int = 0
    """Rank of each component of the matrix that moves features; 0 = full, as published. Pass 8 for features as wide as
    a ResNet-50's."""
    only: bool = False
    """Train on these losses alone, without the base method's loss."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight", "transform_weight", "rank")
        above_zero(self, "temperature")
        at_least(self, 1, "hidden", "dim")

    @property
    def weights(self) -> dict[str, float]:
        every = {"stl": self.weight, "stl_transform": self.weight * self.transform_weight}
        return {name: weight for name, weight in every.items() if weight > 0}

    @property
    def share(self) -> Share | None:
        return Share(2, ("crop", "color", "grayscale"))

    def augmentations(self) -> dict[str, str]:
        return {"crop": f"--stl.weight {self.weight:g}"}

    def build(self, context: AwareContext) -> "STLObjective":
        return STLObjective(self, context)


class STLObjective(AwareObjective):
    """The encoder of transformations, the hypernetwork, and the heads of both losses."""

    config: STL

    def __init__(self, config: STL, context: AwareContext) -> None:
        super().__init__(config)
        D, sync = context.num_features, context.sync
        self.batch_size = context.batch_size
        self.transformation = nn.Sequential(
            *mlp([2 * D, WIDTH], last_relu=True, sync=sync), nn.Linear(WIDTH, WIDTH, bias=False)
        )
        if config.rank:
            self.up_TDR = nn.Parameter(torch.randn(WIDTH, D, config.rank) * (WIDTH * config.rank) ** -0.5)
            self.down_TDR = nn.Parameter(torch.randn(WIDTH, D, config.rank) * D**-0.5)
        else:
            self.matrices_TDD = nn.Parameter(torch.empty(WIDTH, D, D).uniform_(-(WIDTH**-0.5), WIDTH**-0.5))
        self.head = mlp([D, config.hidden, config.dim], sync=sync)
        if config.transform_weight:
            self.transformation_head = mlp([WIDTH, WIDTH, WIDTH], sync=sync)

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """Both losses, and the share of transformations whose most similar one is that of the partner."""
        h1, h2 = (f_BD.float() for f_BD in inputs.features)
        t12, t21 = (self.transformation(torch.cat(pair, 1)).float() for pair in ((h1, h2), (h2, h1)))
        moved_SD = torch.cat([self.move(swapped(t21), h2), self.move(swapped(t12), h1)])
        temperature = self.config.temperature
        z_SE, moved_SE = (F.normalize(self.head(x).float(), dim=1) for x in (torch.cat([h1, h2]), moved_SD))
        losses = {"stl": nt_xent(z_SE, moved_SE, temperature, gather=True)}
        metrics = {}
        if self.config.transform_weight:
            z_ST = F.normalize(self.transformation_head(torch.cat([t12, t21])).float(), dim=1)
            even, odd = z_ST.unflatten(0, (-1, 2)).unbind(1)
            losses["stl_transform"] = nt_xent(even, odd, temperature, gather=True)
            metrics["stl_accuracy"] = partner_accuracy(even.detach(), odd.detach())
        return AwareOutput(losses, metrics)

    def move(self, t_BT: Tensor, h_BD: Tensor) -> Tensor:
        """The features W(t) h [B, D]. Products with the components, [B, 128, D], are smaller than B matrices W(t)."""
        with torch.autocast(h_BD.device.type, enabled=False):
            if self.config.rank:
                small_BTR = torch.einsum("bd,tdr->btr", h_BD, self.down_TDR) * t_BT[:, :, None]
                return h_BD + torch.einsum("btr,tdr->bd", small_BTR, self.up_TDR)
            moved_BTD = torch.einsum("bd,tod->bto", h_BD, self.matrices_TDD)
            return (t_BT[:, :, None] * moved_BTD).sum(1)

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """NT-Xent of equal embeddings."""
        every = {
            "stl": uniform_contrast(2 * self.batch_size, params_VBP),
            "stl_transform": uniform_contrast(self.batch_size, params_VBP),
        }
        return {name: every[name] for name in self.config.weights}


def swapped(x_BT: Tensor) -> Tensor:
    """The rows with those of neighbours 2i and 2i + 1 exchanged."""
    return x_BT.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def partner_accuracy(even_SE: Tensor, odd_SE: Tensor) -> Tensor:
    """Share of rows of the first whose most similar row of the second, over all processes, is the one beside it."""
    nearest_S = (even_SE @ gather_with_gradient(odd_SE).T).argmax(1)
    own_S = torch.arange(len(even_SE), device=even_SE.device) + rank() * len(even_SE)
    return (nearest_S == own_S).float().mean()
