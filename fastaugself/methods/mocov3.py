"""MoCo v3 (Chen 2021, arXiv 2104.02057).

Shape suffixes: B batch of this process, G batch of all processes, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..models.heads import LastNorm, mlp
from ..training.distributed import all_gather, rank
from .base import Method, Options, Output, Parts, Views, at_least_one, encode
from .cassle import Projector
from .momentum import follow, follower, rising


@dataclass(frozen=True)
class MoCoV3(Options):
    """MoCo v3: predictions against the momentum encoder's keys of the whole batch, symmetric, without a queue."""

    title = "MoCo v3"

    dim: int = 256
    """Width of the embedding."""
    hidden: int = 4096
    """Width of the hidden layers of projector and predictor."""
    projector_layers: int = 2
    """Layers of the projector: 2 with a ResNet, 3 with a ViT."""
    predictor_norm: bool = False
    """Batch norm at the predictor's end: with a ViT, not with a ResNet."""
    temperature: float = 0.2
    """Temperature of the loss."""
    momentum: float = 0.99
    """Share of itself that the key encoder keeps at the first step."""
    momentum_schedule: bool = True
    """Let the momentum rise to 1 along half a cosine, or keep it (CASSLE keeps 0.999)."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden")
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"--method.momentum must be in [0, 1], got {self.momentum}")
        if self.temperature <= 0:
            raise UsageError(f"--method.temperature must be above 0, got {self.temperature}")
        if self.projector_layers < 2:
            raise UsageError(f"--method.projector-layers must be at least 2, got {self.projector_layers}")

    def build(self, parts: Parts) -> "MoCoV3Method":
        return MoCoV3Method(self, parts)


class MoCoV3Method(Method):
    """Encoder, projector and predictor; momentum encoder and projector."""

    def __init__(self, config: MoCoV3, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.backbone = parts.backbone
        hidden = [config.hidden] * (config.projector_layers - 1)
        self.projector = Projector(
            [parts.num_features, *hidden, config.dim], cassle=parts.cassle, last_norm="plain", sync=parts.sync
        )
        last: LastNorm = "plain" if config.predictor_norm else "none"
        self.predictor = mlp([config.dim, config.hidden, config.dim], last_norm=last, sync=parts.sync)
        self.key_backbone = follower(self.backbone)
        self.key_projector = follower(self.projector)

    def forward(self, views: Views) -> Output:
        features = encode(self.backbone, views.x_VBCHW)
        q1, q2 = (self.predictor(self.projector(f, views.omega(v))) for v, f in enumerate(features))
        with torch.no_grad():
            keys = encode(self.key_backbone, views.x_VBCHW)
            k1, k2 = (self.key_projector(f, views.omega(v)) for v, f in enumerate(keys))
        temperature = self.config.temperature
        loss = contrast(q1, k2, temperature) + contrast(q2, k1, temperature)
        return Output(loss, (features[0], features[1]))

    def after_step(self, carry: tuple[Tensor, ...], progress: float) -> None:
        """Moves the key encoder towards the encoder."""
        momentum = self.config.momentum
        if self.config.momentum_schedule:
            momentum = rising(momentum, progress)
        follow([self.key_backbone, self.key_projector], [self.backbone, self.projector], momentum)


def contrast(q_BE: Tensor, k_BE: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each query's own key among the keys of all processes, times 2T (algorithm 1)."""
    q_BE, k_GE = F.normalize(q_BE.float(), dim=1), all_gather(F.normalize(k_BE.detach().float(), dim=1))
    logits_BG = q_BE @ k_GE.T / temperature
    own = torch.arange(len(q_BE), device=q_BE.device) + rank() * len(q_BE)
    return F.cross_entropy(logits_BG, own) * (2 * temperature)
