"""SimSiam (Chen and He 2020, arXiv 2011.10566)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views, at_least_one, mean_over_pairs


@dataclass(frozen=True)
class SimSiam(MethodConfig):
    """SimSiam: each view predicts the projection of the other, with a stop-gradient and without negatives or EMA."""

    title = "SimSiam"
    multi_crop = True
    has_predictor = True
    per_sample_loss = True

    dim: int = 2048
    """Width of the projector."""
    layers: int = 3
    """Number of layers of the projector; AugSelf uses 2 on STL10."""
    predictor_hidden: int = 512
    """Width of the predictor's hidden layer."""
    affine: bool = False
    """Affine parameters in the projector's last batch norm: off in SimSiam, on in AugSelf's and CASSLE's code."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "predictor_hidden")
        if self.layers < 2:
            raise UsageError(
                f"--method.layers must be at least 2, got {self.layers}; pass --method.layers {SimSiam.layers}"
            )

    def build(self, context: BuildContext) -> "SimSiamMethod":
        return SimSiamMethod(self, context)


class SimSiamMethod(Method):
    """Encoder, projector, and a predictor with a constant learning rate."""

    constant_lr = ("predictor",)

    def __init__(self, config: SimSiam, context: BuildContext) -> None:
        super().__init__(context)
        self.projector = context.projector(
            [context.num_features, *[config.dim] * config.layers],
            last_norm="affine" if config.affine else "plain",
        )
        self.predictor = context.predictor([config.dim, config.predictor_hidden, config.dim])

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        z = [self.projector(f, views.condition(v)) for v, f in enumerate(features)]
        p = [self.predictor(z_BE, views.params_VBP, views.sizes_B2, v) for v, z_BE in enumerate(z)]
        loss = mean_over_pairs(lambda a, b: negative_cosine_similarity(p[b], z[a]), len(p))
        return Output(loss, (features[0], features[1]))


def negative_cosine_similarity(p_BE: Tensor, z_BE: Tensor) -> Tensor:
    """Negative cosine similarity with a stop-gradient on the target `z_BE` (eq. 1), mean over the batch."""
    return -F.cosine_similarity(p_BE.float(), z_BE.detach().float(), dim=1).mean()
