"""LeJEPA (Balestriero and LeCun 2025, arXiv 2511.08544).

Shape suffixes: V crops, B batch of this process, E embedding, S directions, K knots.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import sum_with_gradient, world_size
from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views, above_zero, at_least_one
from .hashing import normal


@dataclass(frozen=True)
class LeJEPA(MethodConfig):
    """LeJEPA: each crop predicts the mean of the global views, and embeddings are normal along random directions."""

    title = "LeJEPA"
    multi_crop = True

    dim: int = 64
    """Width of the embedding; 16 to 128 in the authors' code."""
    hidden: int = 2048
    """Width of the projector's two hidden layers."""
    weight: float = 0.02
    """Weight of SIGReg (lambda); that of the prediction is 1 - weight."""
    directions: int = 256
    """Number of random directions, which are new in every step; up to 1024 in the authors' code."""
    knots: int = 17
    """Number of points at which characteristic functions are compared."""
    limit: float = 3.0
    """The largest of these points; the first is 0."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden", "directions")
        if not 0 < self.weight < 1:
            raise UsageError(
                f"--method.weight must be between 0 and 1 or the features collapse, got {self.weight}; pass "
                f"--method.weight {LeJEPA.weight}"
            )
        if self.knots < 2:
            raise UsageError(f"--method.knots must be at least 2, got {self.knots}; pass --method.knots {LeJEPA.knots}")
        above_zero(self, "limit")

    def build(self, context: BuildContext) -> "LeJEPAMethod":
        return LeJEPAMethod(self, context)


class LeJEPAMethod(Method):
    """Encoder and projector, without EMA, stop-gradient or queue."""

    step: Tensor

    def __init__(self, config: LeJEPA, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        self.projector = context.projector([context.num_features, config.hidden, config.hidden, config.dim])
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        z_VBE = torch.stack([self.projector(f, views.condition(v)).float() for v, f in enumerate(features)])
        config = self.config
        prediction = (z_VBE - z_VBE[:2].mean(0)).square().mean()
        directions_SE = F.normalize(normal(config.directions, config.dim, self.step), dim=1)
        regularization = sigreg(z_VBE, directions_SE, knots=config.knots, limit=config.limit)
        loss = (1 - config.weight) * prediction + config.weight * regularization
        metrics = {"prediction": prediction, "sigreg": regularization}
        return Output(loss, (features[0], features[1]), metrics=metrics)

    @torch.no_grad()
    def update_queue(self, queue_update: tuple[Tensor, ...], progress: float) -> None:
        """Goes on to the next directions."""
        self.step.add_(1)


def sigreg(z_VBE: Tensor, directions_SE: Tensor, *, knots: int, limit: float) -> Tensor:
    """Sketched isotropic Gaussian regularization: the Epps-Pulley statistic, mean over crops and directions.

    z_VBE: float32 embeddings. directions_SE: unit vectors, the same on all processes. With N samples x of all processes
    along a direction, it is N times the integral over t of |mean(exp(itx)) - exp(-t^2 / 2)|^2 exp(-t^2 / 2), by the
    trapezoidal rule with `knots` points on [0, limit], doubled because the integrand is even.
    """
    N = z_VBE.shape[1] * world_size()
    t_K = torch.linspace(0, limit, knots, device=z_VBE.device)
    normal_K = (-t_K.square() / 2).exp()
    with torch.autocast(z_VBE.device.type, enabled=False):  # autocast would round the angles
        angles_VBSK = (z_VBE @ directions_SE.T)[..., None] * t_K
        sums_2VSK = torch.stack([angles_VBSK.cos().sum(1), angles_VBSK.sin().sum(1)])
        real_VSK, imaginary_VSK = sum_with_gradient(sums_2VSK) / N
        error_VSK = ((real_VSK - normal_K).square() + imaginary_VSK.square()) * normal_K
        return 2 * N * torch.trapezoid(error_VSK, dx=limit / (knots - 1)).mean()
