"""MoCo v3 (Chen 2021, arXiv 2104.02057).

Shape suffixes: B batch of this process, S queries (B or several B), G batch of all processes, D features, E embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, rank
from ..errors import UsageError
from ..models.ema import ema_copy, ema_update, scheduled_momentum
from ..models.heads import LastNorm
from .base import (
    BuildContext,
    Method,
    MethodConfig,
    Output,
    Views,
    above_zero,
    at_least_one,
    in_unit_interval,
    mean_over_pairs,
)
from .parts import check_split, repeated


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
    projector_affine: bool = False
    """Affine parameters in the projector's last batch norm, as in Fast-MoCo."""
    predictor_hidden: int | None = None
    """Width of the predictor's hidden layer. Default: --method.hidden."""
    split: int = 1
    """Fast-MoCo: cut each view in split x split parts, encode each, and let the mean of every pair be a query; the keys
    are those of whole views. 2 gives six queries for the cost of one. 1 = off (this project's ResNets only)."""
    temperature: float = 0.2
    """Temperature of the loss."""
    scaled_loss: bool = True
    """Multiply the loss by 2 x temperature and add both directions, as MoCo v3's code does; off: the mean of plain
    InfoNCE losses, as in Fast-MoCo."""
    momentum: float = 0.99
    """Initial EMA momentum of the momentum encoder."""
    momentum_schedule: bool = True
    """Move the momentum to --method.momentum-end with a cosine schedule; off: constant momentum (0.999 in CASSLE)."""
    momentum_end: float = 1.0
    """EMA momentum at the end of training, with --method.momentum-schedule."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden")
        check_split(self.split)
        if self.predictor_hidden is not None and self.predictor_hidden < 1:
            raise UsageError(
                f"--method.predictor-hidden must be at least 1, got {self.predictor_hidden}; pass "
                f"--method.predictor-hidden {self.hidden}"
            )
        in_unit_interval(self, "momentum", "momentum_end")
        above_zero(self, "temperature")
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
        widths = [context.num_features, *hidden, config.dim]
        self.projector = context.projector(widths, last_norm="affine" if config.projector_affine else "plain")
        last: LastNorm = "plain" if config.predictor_norm else "none" if config.predictor_bias else "bare"
        widths = [config.dim, config.predictor_hidden or config.hidden, config.dim]
        self.predictor = context.predictor(widths, last_norm=last)
        self.key_backbone = ema_copy(self.backbone)
        self.key_projector = ema_copy(self.projector)

    def forward(self, views: Views) -> Output:
        features, queried = self._encode_queries(views)
        projections = [self.projector(f, repeated(views.condition(v), len(f))) for v, f in enumerate(queried)]
        q = [self._predict(z, views, v) for v, z in enumerate(projections)]
        with torch.no_grad():
            keys = self.encode(self.key_backbone, views)
            k = [self.key_projector(f, views.condition(v)) for v, f in enumerate(keys)]
        temperature = self.config.temperature
        loss = mean_over_pairs(lambda a, b: contrastive_loss(q[b], k[a], temperature), len(q))
        return Output(loss * (4 * temperature if self.config.scaled_loss else 1.0), features)

    def _encode_queries(self, views: Views) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        """Features [B, D] of both global views, and the input of the projector for each crop, [B or several B, D]."""
        if self.config.split == 1:  # both views in one forward pass, where they are batched
            crops = self.encode_crops(views)
            return (crops[0], crops[1]), crops
        (f1_BD, first_SD), (f2_BD, second_SD) = (self.encode_queries(views, v, self.config.split) for v in (0, 1))
        return (f1_BD, f2_BD), [first_SD, second_SD, *self.encode_local(self.backbone, views)]

    def _predict(self, z_SE: Tensor, views: Views, view: int) -> Tensor:
        params_VBP, sizes_B2 = views.params_VBP, views.sizes_B2
        if params_VBP is not None and sizes_B2 is not None and len(z_SE) > len(sizes_B2):
            count = len(z_SE) // len(sizes_B2)
            params_VBP, sizes_B2 = params_VBP.repeat(1, count, 1), sizes_B2.repeat(count, 1)
        predicted: Tensor = self.predictor(z_SE, params_VBP, sizes_B2, view)
        return predicted

    @property
    def momentum_backbone(self) -> nn.Module:
        """The EMA copy of the encoder."""
        return self.key_backbone

    def update_ema(self, progress: float) -> None:
        """Updates the momentum encoder."""
        momentum = scheduled_momentum(self.config, progress)
        ema_update([self.key_backbone, self.key_projector], [self.backbone, self.projector], momentum)


def contrastive_loss(q_SE: Tensor, k_BE: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query's positive key against the keys of all processes (algorithm 1 without its 2 * temperature).

    q_SE, k_BE: queries and keys, not normalised; no gradient flows to the keys. Several queries of an image are B rows
    apart. Returns the mean over the queries.
    """
    q_SE, k_GE = F.normalize(q_SE.float(), dim=1), all_gather(F.normalize(k_BE.detach().float(), dim=1))
    with torch.autocast(q_SE.device.type, enabled=False):  # autocast would round the similarities
        logits_SG = q_SE @ k_GE.T / temperature
    own_S = torch.arange(len(q_SE), device=q_SE.device) % len(k_BE) + rank() * len(k_BE)
    return F.cross_entropy(logits_SG, own_S)
