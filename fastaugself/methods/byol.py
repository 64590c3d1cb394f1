"""BYOL (Grill 2020, arXiv 2006.07733)."""

from dataclasses import dataclass

import torch
from torch import nn

from ..models.ema import ema_copy, ema_update, scheduled_momentum
from ..models.heads import LastNorm
from .base import BuildContext, Method, MethodConfig, Output, Views, at_least_one, in_unit_interval, mean_over_pairs
from .simsiam import negative_cosine_similarity


@dataclass(frozen=True)
class BYOL(MethodConfig):
    """BYOL: an online network predicts the projections of a target network, its exponential moving average."""

    title = "BYOL"
    multi_crop = True
    has_predictor = True
    per_sample_loss = True

    dim: int = 256
    """Width of the projection."""
    hidden: int = 4096
    """Width of the projector's hidden layer; CASSLE's code uses the width of the features."""
    predictor_hidden: int = 4096
    """Width of the predictor's hidden layer."""
    last_bias: bool = True
    """Bias in the last layers of projector and predictor; BYOL's own code has none."""
    momentum: float = 0.996
    """Initial EMA momentum of the target network."""
    momentum_schedule: bool = True
    """Move the momentum to --method.momentum-end with a cosine schedule; off: constant momentum."""
    momentum_end: float = 1.0
    """EMA momentum at the end of training, with --method.momentum-schedule."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden", "predictor_hidden")
        in_unit_interval(self, "momentum", "momentum_end")

    def build(self, context: BuildContext) -> "BYOLMethod":
        return BYOLMethod(self, context)


class BYOLMethod(Method):
    """Online encoder, projector and predictor; EMA target encoder and projector."""

    def __init__(self, config: BYOL, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        widths = [context.num_features, config.hidden, config.dim]
        last: LastNorm = "none" if config.last_bias else "bare"
        self.projector = context.projector(widths, last_norm=last)
        widths = [config.dim, config.predictor_hidden, config.dim]
        self.predictor = context.predictor(widths, last_norm=last, sync=context.sync)
        self.target_backbone = ema_copy(self.backbone)
        self.target_projector = ema_copy(self.projector)

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        projections = [self.projector(f, views.condition(v)) for v, f in enumerate(features)]
        p = [self.predictor(z, views.params_VBP, views.sizes_B2, v) for v, z in enumerate(projections)]
        with torch.no_grad():
            targets = self.encode(self.target_backbone, views)
            t = [self.target_projector(f, views.condition(v)) for v, f in enumerate(targets)]
        # eq. 2, symmetrised (the sum over two views): |p - t|^2 = 2 - 2 cos(p, t) for L2-normalised p and t.
        loss = 4 + 4 * mean_over_pairs(lambda a, b: negative_cosine_similarity(p[b], t[a]), len(p))
        return Output(loss, (features[0], features[1]))

    @property
    def momentum_backbone(self) -> nn.Module:
        """The EMA copy of the encoder."""
        return self.target_backbone

    def update_ema(self, progress: float) -> None:
        """Updates the target network."""
        momentum = scheduled_momentum(self.config, progress)
        ema_update([self.target_backbone, self.target_projector], [self.backbone, self.projector], momentum)
