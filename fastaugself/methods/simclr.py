"""SimCLR (Chen 2020, arXiv 2002.05709).

Shape suffixes: B batch of this process, G batch of all processes, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..training.distributed import gather_with_gradient, rank
from .base import Method, Options, Output, Parts, Views, at_least_one, encode
from .cassle import Projector


@dataclass(frozen=True)
class SimClr(Options):
    """SimCLR: both views of a photo against all other views of the batch."""

    title = "SimCLR"

    dim: int = 128
    """Width of the embedding."""
    temperature: float = 0.2
    """Temperature of the NT-Xent loss."""
    gather: bool = True
    """Negatives from all processes; AugSelf's code takes those of its own process."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim")
        if self.temperature <= 0:
            raise UsageError(f"--method.temperature must be above 0, got {self.temperature}")

    def build(self, parts: Parts) -> "SimClrMethod":
        return SimClrMethod(self, parts)


class SimClrMethod(Method):
    """Encoder and projector."""

    def __init__(self, config: SimClr, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.backbone = parts.backbone
        widths = [parts.num_features, parts.num_features, config.dim]
        self.projector = Projector(widths, cassle=parts.cassle, sync=parts.sync)

    def forward(self, views: Views) -> Output:
        features = encode(self.backbone, views.x_VBCHW)
        z1, z2 = (F.normalize(self.projector(f, views.omega(v)).float(), dim=1) for v, f in enumerate(features))
        loss = nt_xent(z1, z2, self.config.temperature, gather=self.config.gather)
        return Output(loss, (features[0], features[1]))


def nt_xent(z1_BE: Tensor, z2_BE: Tensor, temperature: float, *, gather: bool) -> Tensor:
    """The normalised-temperature cross entropy of this process's 2B anchors (eq. 1), mean.

    z1_BE, z2_BE: normalised embeddings of both views. gather: negatives from all processes; the mean over processes
    is then the loss of the whole batch, gradients included.
    """
    B = len(z1_BE)
    first = rank() * B if gather else 0
    keys = [gather_with_gradient(z) if gather else z for z in (z1_BE, z2_BE)]
    G = len(keys[0])
    logits = torch.cat([z1_BE, z2_BE]) @ torch.cat(keys).T / temperature  # [2B, 2G]
    own = torch.arange(B, device=logits.device) + first
    itself, other = torch.cat([own, own + G]), torch.cat([own + G, own])
    logits = logits.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(logits, other)
