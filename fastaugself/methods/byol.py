"""BYOL (Grill 2020, arXiv 2006.07733)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from ..models.heads import mlp
from .base import Method, Options, Output, Parts, Views, at_least_one, encode
from .cassle import Projector
from .momentum import follow, follower, rising
from .simsiam import distance


@dataclass(frozen=True)
class Byol(Options):
    """BYOL: an online network predicts the projections of a slowly following target network."""

    title = "BYOL"

    dim: int = 256
    """Width of the projection."""
    hidden: int = 4096
    """Width of the projector's hidden layer; CASSLE's code has the features' own width."""
    predictor_hidden: int = 4096
    """Width of the predictor's hidden layer."""
    momentum: float = 0.996
    """Share of itself that the target keeps at the first step; rises to 1 along half a cosine."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden", "predictor_hidden")
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"--method.momentum must be in [0, 1], got {self.momentum}")

    def build(self, parts: Parts) -> "ByolMethod":
        return ByolMethod(self, parts)


class ByolMethod(Method):
    """Online encoder, projector and predictor; target encoder and projector."""

    separable = True

    def __init__(self, config: Byol, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.backbone = parts.backbone
        widths = [parts.num_features, config.hidden, config.dim]
        self.projector = Projector(widths, cassle=parts.cassle, sync=parts.sync)
        self.predictor = mlp([config.dim, config.predictor_hidden, config.dim], sync=parts.sync)
        self.target_backbone = follower(self.backbone)
        self.target_projector = follower(self.projector)

    def forward(self, views: Views) -> Output:
        features = encode(self.backbone, views.x_VBCHW)
        p1, p2 = (self.predictor(self.projector(f, views.omega(v))) for v, f in enumerate(features))
        with torch.no_grad():
            targets = encode(self.target_backbone, views.x_VBCHW)
            t1, t2 = (self.target_projector(f, views.omega(v)) for v, f in enumerate(targets))
        # |normalised p - normalised t|^2 = 2 - 2 cos (eq. 2), for both orders.
        loss = 4 + 2 * (distance(p1, t2) + distance(p2, t1))
        return Output(loss, (features[0], features[1]))

    def after_step(self, carry: tuple[Tensor, ...], progress: float) -> None:
        """Moves the target network towards the online network."""
        followers, leaders = [self.target_backbone, self.target_projector], [self.backbone, self.projector]
        follow(followers, leaders, rising(self.config.momentum, progress))
