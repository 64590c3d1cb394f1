"""VICReg (Bardes 2021, arXiv 2105.04906).

Shape suffixes: B batch of this process, G batch of all processes, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import gather_with_gradient, rank, sum_with_gradient, world_size
from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views, at_least_one, mean_over_pairs

EPSILON = 1e-4  # added to variances (section 4.1)


@dataclass(frozen=True)
class VICReg(MethodConfig):
    """VICReg: views close to each other, each dimension of the embedding with unit variance, and no covariances."""

    title = "VICReg"
    multi_crop = True

    dim: int = 8192
    """Width of the three layers of the projector."""
    invariance: float = 25.0
    """Weight of the distance of the views."""
    variance: float = 25.0
    """Weight of the hinge that keeps standard deviations at 1."""
    covariance: float = 1.0
    """Weight of the squared covariances of different dimensions."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim")
        for name in ("invariance", "covariance"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"--method.{name} must be at least 0, got {getattr(self, name)}; pass --method.{name} "
                    f"{getattr(VICReg, name)}"
                )
        if self.variance <= 0:
            raise UsageError(
                f"--method.variance must be above 0 or the features collapse, got {self.variance}; pass "
                f"--method.variance {VICReg.variance}"
            )

    def build(self, context: BuildContext) -> "VICRegMethod":
        return VICRegMethod(self, context)


class VICRegMethod(Method):
    """Encoder and projector."""

    def __init__(self, config: VICReg, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        self.projector = context.projector([context.num_features, *[config.dim] * 3])

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        z = [self.projector(f, views.condition(v)) for v, f in enumerate(features)]
        invariance, variance, covariance = vicreg_terms(z)
        config = self.config
        loss = config.invariance * invariance + config.variance * variance + config.covariance * covariance
        metrics = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return Output(loss, (features[0], features[1]), metrics=metrics)


def vicreg_terms(views_BE: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The invariance, variance and covariance terms of the loss (equations 1 to 6), in float32.

    views_BE: embeddings of each crop, the two global views first; statistics are those of all processes. Invariance:
    the mean squared difference of each global view and every other crop. Variance: the hinge, mean over the crops.
    Covariance: twice the mean over the crops, so that it is the sum over two views, as in algorithm 1 and the original
    code; that code halves the variance terms, which algorithm 1 does not, and divides distances by the width, which
    equation 5 does not.
    """
    with torch.autocast(views_BE[0].device.type, enabled=False):  # autocast would round the covariances
        z = [z_BE.float() for z_BE in views_BE]
        invariance = mean_over_pairs(lambda a, b: F.mse_loss(z[a], z[b]), len(z))
        variances, covariances = zip(*(variance_covariance(z_BE) for z_BE in z), strict=True)
        return invariance, torch.stack(variances).mean(), 2 * torch.stack(covariances).mean()


def variance_covariance(z_BE: Tensor) -> tuple[Tensor, Tensor]:
    """The hinge on the standard deviations and the squared covariances of one view (equations 1 to 4).

    z_BE: float32 embeddings of this process; the statistics are unbiased and over all processes.
    """
    z_GE = gather_with_gradient(z_BE)
    G, E = z_GE.shape
    z_GE = z_GE - z_GE.mean(0)
    variance_E = z_GE.square().sum(0) / (G - 1)
    own_BE = z_GE.chunk(world_size())[rank()]
    if G < E:  # Z'Z and ZZ' have the same squares in sum; each process has its rows of the smaller one
        squares = sum_with_gradient((own_BE @ z_GE.T).square().sum())
    else:
        squares = sum_with_gradient(own_BE.T @ own_BE).square().sum()
    covariance = (squares / (G - 1) ** 2 - variance_E.square().sum()) / E
    return F.relu(1 - (variance_E + EPSILON).sqrt()).mean(), covariance
