"""SimCLR (Chen 2020, arXiv 2002.05709).

Shape suffixes: B batch of this process, G batch of all processes, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import gather_with_gradient, rank
from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views, above_zero, at_least_one


@dataclass(frozen=True)
class SimCLR(MethodConfig):
    """SimCLR: the two views of an image are a positive pair, all other views of the batch are negatives (NT-Xent)."""

    title = "SimCLR"
    multi_crop = True

    dim: int = 128
    """Width of the embedding."""
    layers: int = 2
    """Number of layers of the projector: 2 in the paper, 3 in the original code since SimCLR v2."""
    last_norm: bool = False
    """Batch norm after the projector's last layer, as in the original code."""
    temperature: float = 0.2
    """Temperature of the NT-Xent loss."""
    gather: bool = True
    """Use negatives from all processes; off, as in AugSelf's code: only from the same process."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim")
        if self.layers < 2:
            raise UsageError(
                f"--method.layers must be at least 2, got {self.layers}; pass --method.layers {SimCLR.layers}"
            )
        above_zero(self, "temperature")

    def build(self, context: BuildContext) -> "SimCLRMethod":
        return SimCLRMethod(self, context)


class SimCLRMethod(Method):
    """Encoder and projector."""

    def __init__(self, config: SimCLR, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        widths = [*[context.num_features] * config.layers, config.dim]
        self.projector = context.projector(widths, last_norm="affine" if config.last_norm else "none")

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        z1, z2, *local = (
            F.normalize(self.projector(f, views.condition(v)).float(), dim=1) for v, f in enumerate(features)
        )
        loss = nt_xent(z1, z2, self.config.temperature, gather=self.config.gather, local=local)
        return Output(loss, (features[0], features[1]))


def nt_xent(z1_BE: Tensor, z2_BE: Tensor, temperature: float, *, gather: bool, local: Sequence[Tensor] = ()) -> Tensor:
    """NT-Xent loss (eq. 1), mean over the 2B anchors of this process and over the pairs of local crops.

    z1_BE, z2_BE: L2-normalised embeddings of both views. gather: use negatives from all processes; loss and gradients,
    averaged over processes, are then those of the global batch. local: those of the local crops, each of which is an
    anchor twice, with either view as the positive; the other view of its image is not a negative then.
    """
    B = len(z1_BE)
    first = rank() * B if gather else 0
    keys = [gather_with_gradient(z) if gather else z for z in (z1_BE, z2_BE)]
    G = len(keys[0])
    # Anchors: both views, then each local crop for the first view and for the second.
    anchors = torch.cat([z1_BE, z2_BE, *(z_BE for z_BE in local for _ in (0, 1))])
    with torch.autocast(z1_BE.device.type, enabled=False):  # autocast would round the similarities
        logits = anchors @ torch.cat(keys).T / temperature  # [2B + 2LB, 2G]
    own = torch.arange(B, device=logits.device) + first
    # A view's own column is left out; that of a local crop is the view which is not the positive.
    without, positive = (torch.cat([a, b] * (1 + len(local))) for a, b in ((own, own + G), (own + G, own)))
    logits = logits.scatter(1, without[:, None], float("-inf"))
    return F.cross_entropy(logits, positive)
