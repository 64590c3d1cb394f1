"""MoCo v3 (Chen 2021, arXiv 2104.02057).

Shape suffixes: B batch of this process, G batch of all processes, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, rank
from ..errors import UsageError
from ..models.ema import ema_copy, ema_update, scheduled_momentum
from ..models.heads import LastNorm
from .base import BuildContext, Method, MethodConfig, Output, Views, at_least_one, in_unit_interval, mean_over_pairs


@dataclass(frozen=True)
class MoCoV3(MethodConfig):
    """MoCo v3: symmetric InfoNCE against the momentum encoder's keys of the global batch, without a queue."""

    title = "MoCo v3"
    multi_crop = True
    has_predictor = True

    dim: int = 256
    """Width of the embedding."""
    hidden: int = 4096
    """Width of the hidden layers of projector and predictor."""
    projector_layers: int = 2
    """Number of layers of the projector: 2 for ResNets, 3 for ViTs."""
    predictor_norm: bool = False
    """Batch norm after the last layer of the predictor: on for ViTs, off for ResNets."""
    predictor_bias: bool = True
    """Bias in the last layer of a predictor without --method.predictor-norm; MoCo v3's own code has none."""
    temperature: float = 0.2
    """Temperature of the loss."""
    momentum: float = 0.99
    """Initial EMA momentum of the momentum encoder."""
    momentum_schedule: bool = True
    """Move the momentum to --method.momentum-end with a cosine schedule; off: constant momentum (0.999 in CASSLE)."""
    momentum_end: float = 1.0
    """EMA momentum at the end of training, with --method.momentum-schedule."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden")
        in_unit_interval(self, "momentum", "momentum_end")
        if self.temperature <= 0:
            raise UsageError(
                f"--method.temperature must be above 0, got {self.temperature}; pass "
                f"--method.temperature {MoCoV3.temperature}"
            )
        if self.projector_layers < 2:
            raise UsageError(
                f"--method.projector-layers must be at least 2, got {self.projector_layers}; pass "
                f"--method.projector-layers {MoCoV3.projector_layers}"
            )

    def build(self, context: BuildContext) -> "MoCoV3Method":
        return MoCoV3Method(self, context)


class MoCoV3Method(Method):
    """Encoder, projector and predictor; EMA (momentum) encoder and projector."""

    def __init__(self, config: MoCoV3, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        hidden = [config.hidden] * (config.projector_layers - 1)
        self.projector = context.projector([context.num_features, *hidden, config.dim], last_norm="plain")
        last: LastNorm = "plain" if config.predictor_norm else "none" if config.predictor_bias else "bare"
        self.predictor = context.predictor([config.dim, config.hidden, config.dim], last_norm=last)
        self.key_backbone = ema_copy(self.backbone)
        self.key_projector = ema_copy(self.projector)

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        projections = [self.projector(f, views.condition(v)) for v, f in enumerate(features)]
        q = [self.predictor(z, views.params_VBP, views.sizes_B2, v) for v, z in enumerate(projections)]
        with torch.no_grad():
            keys = self.encode(self.key_backbone, views)
            k = [self.key_projector(f, views.condition(v)) for v, f in enumerate(keys)]
        temperature = self.config.temperature
        loss = 2 * mean_over_pairs(lambda a, b: contrastive_loss(q[b], k[a], temperature), len(q))
        return Output(loss, (features[0], features[1]))

    @property
    def momentum_backbone(self) -> nn.Module:
        """The EMA copy of the encoder."""
        return self.key_backbone

    def update_ema(self, progress: float) -> None:
        """Updates the momentum encoder."""
        momentum = scheduled_momentum(self.config, progress)
        ema_update([self.key_backbone, self.key_projector], [self.backbone, self.projector], momentum)


def contrastive_loss(q_BE: Tensor, k_BE: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query's positive key against the keys of all processes, times 2 * temperature (algorithm 1).

    q_BE, k_BE: queries and keys, not normalised; no gradient flows to the keys. Returns the mean over the batch.
    """
    q_BE, k_GE = F.normalize(q_BE.float(), dim=1), all_gather(F.normalize(k_BE.detach().float(), dim=1))
    with torch.autocast(q_BE.device.type, enabled=False):  # autocast would round the similarities
        logits_BG = q_BE @ k_GE.T / temperature
    own = torch.arange(len(q_BE), device=q_BE.device) + rank() * len(q_BE)
    return F.cross_entropy(logits_BG, own) * (2 * temperature)
