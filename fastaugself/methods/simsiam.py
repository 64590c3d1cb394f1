"""SimSiam (Chen and He 2020, arXiv 2011.10566)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..models.heads import mlp
from .base import Method, Options, Output, Parts, Views, at_least_one, encode
from .cassle import Projector


@dataclass(frozen=True)
class SimSiam(Options):
    """SimSiam: each view predicts the other's projection, without negatives or a momentum encoder."""

    title = "SimSiam"

    dim: int = 2048
    """Width of the projector."""
    layers: int = 3
    """Layers of the projector; AugSelf uses 2 on STL10."""
    predictor_hidden: int = 512
    """Width of the predictor's hidden layer."""
    affine: bool = False
    """Affine last batch norm of the projector: not in SimSiam, but in AugSelf's and CASSLE's."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "predictor_hidden")
        if self.layers < 2:
            raise UsageError(f"--method.layers must be at least 2, got {self.layers}")

    def build(self, parts: Parts) -> "SimSiamMethod":
        return SimSiamMethod(self, parts)


class SimSiamMethod(Method):
    """Encoder, projector and a predictor whose learning rate stays constant."""

    separable = True
    constant_lr = ("predictor",)

    def __init__(self, config: SimSiam, parts: Parts) -> None:
        super().__init__()
        self.backbone = parts.backbone
        self.projector = Projector(
            [parts.num_features, *[config.dim] * config.layers],
            cassle=parts.cassle,
            last_norm="affine" if config.affine else "plain",
            sync=parts.sync,
        )
        self.predictor = mlp([config.dim, config.predictor_hidden, config.dim], sync=parts.sync)

    def forward(self, views: Views) -> Output:
        features = encode(self.backbone, views.x_VBCHW)
        z1, z2 = (self.projector(f, views.omega(v)) for v, f in enumerate(features))
        loss = 0.5 * (distance(self.predictor(z1), z2) + distance(self.predictor(z2), z1))
        return Output(loss, (features[0], features[1]))


def distance(p_BE: Tensor, z_BE: Tensor) -> Tensor:
    """Negative cosine similarity to a target that takes no gradient (eq. 1), mean over the batch."""
    return -F.cosine_similarity(p_BE.float(), z_BE.detach().float(), dim=1).mean()
