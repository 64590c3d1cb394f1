"""SIE: split features, one half invariant, the other moved by a linear map made from the parameters (Garrido et al.
2023, arXiv 2302.10283). Written from the formulas of the paper and of later descriptions.

The features h_v are halved into h^i_v and h^e_v, with embeddings x^i_v = P_i(h^i_v), x^e_v = P_e(h^e_v). A linear
hypernetwork makes the matrix W(g) from the difference g = a_2 - a_1 of the standardised parameters:

    invariance   MSE(x^i_1, x^i_2)                       published weight 10
    equivariance MSE(W(g) x^e_1, x^e_2)                  4.5
    variance     hinge of [x^i; x^e], both views         10
    prediction   hinge of W(g) x^e_1                     10
    covariance   of [x^i; x^e], both views               1

The hinge is VICReg's, mean over dimensions of relu(1 - sqrt(Var + 1e-4)), its covariance term the sum of Cov_ij^2 / E
over i != j; statistics are those of all processes. Published on 3DIEBench, whose parameters are rotations of objects:
trained alone (`--sie.only`) with Adam, a learning rate of 1e-3 and batches of 1024.

Shape suffixes: V views, B batch, D features, E embedding, n descriptor columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import sum_with_gradient, world_size
from ..errors import UsageError
from ..models.heads import mlp
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    at_least,
    register_aware,
)
from .descriptors import Descriptors, check_parts, varied

INCLUDE = ("blur", "color", "crop", "flip", "grayscale")


@register_aware("sie")
@dataclass(frozen=True)
class SIE(AwareConfig):
    """SIE: half of the features invariant, half moved by a linear map made from the difference of the parameters."""

    title = "SIE"

    weight: float = 1.0
    """Multiplier of all losses below; 0 = off."""
    invariance: float = 10.0
    """Weight of the distance of the invariant embeddings."""
    equivariance: float = 4.5
    """Weight of the distance of the moved embedding to the other view's."""
    variance: float = 10.0
    """Weight of the variance of the embeddings."""
    prediction: float = 10.0
    """Weight of the variance of the moved embeddings."""
    covariance: float = 1.0
    """Weight of the covariance of the embeddings."""
    hidden: int = 1024
    """Width of the two hidden layers of both projectors."""
    dim: int = 1024
    """Width of both embeddings."""
    include: tuple[str, ...] = INCLUDE
    """Parameters that make the map: blur, color, crop, flip, grayscale, jitter, order, rotation, solarize."""
    only: bool = False
    """Train on these losses alone, without the base method's loss."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight", "invariance", "equivariance", "variance", "prediction", "covariance")
        at_least(self, 1, "hidden", "dim")
        check_parts("--sie.include", self.include, INCLUDE)

    @property
    def weights(self) -> dict[str, float]:
        names = ("invariance", "equivariance", "variance", "prediction", "covariance")
        every = {f"sie_{name}": self.weight * getattr(self, name) for name in names}
        return {name: weight for name, weight in every.items() if weight > 0}

    def augmentations(self) -> dict[str, str]:
        return varied("--sie.include", self.include)

    def build(self, context: AwareContext) -> "SIEObjective":
        return SIEObjective(self, context)


class SIEObjective(AwareObjective):
    """Both projectors and the hypernetwork."""

    config: SIE

    def __init__(self, config: SIE, context: AwareContext) -> None:
        super().__init__(config)
        if context.num_features % 2:
            raise UsageError(
                f"--sie.weight {config.weight:g} halves the features, and this backbone has {context.num_features}; "
                "pass --sie.weight 0"
            )
        widths = [context.num_features // 2, config.hidden, config.hidden, config.dim]
        self.descriptors = Descriptors(config.include, context.policies[0])
        self.invariant, self.equivariant = (mlp(widths, sync=context.sync) for _ in range(2))
        # The weights of a linear layer from g to the matrix, with its bias last.
        bound, columns = self.descriptors.width**-0.5, self.descriptors.width + 1
        self.matrices_nEE = nn.Parameter(torch.empty(columns, config.dim, config.dim).uniform_(-bound, bound))
        with torch.no_grad():
            self.matrices_nEE.mul_(config.dim**-0.5)

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The five losses, and by how much the moved embedding is closer to the other view's than the own one is."""
        a1, a2 = self.descriptors(inputs.params_VBP, inputs.sizes_B2)
        halves = [f_BD.float().chunk(2, 1) for f_BD in inputs.features]
        i1, i2 = (self.invariant(half[0]).float() for half in halves)
        e1, e2 = (self.equivariant(half[1]).float() for half in halves)
        moved = self.predict_view(e1, a1, a2)
        with torch.autocast(e1.device.type, enabled=False):
            covariances = [covariance_of(torch.cat(pair, 1)) for pair in ((i1, e1), (i2, e2))]
            every = {
                "sie_invariance": F.mse_loss(i1, i2),
                "sie_equivariance": F.mse_loss(moved, e2),
                "sie_variance": sum(hinge(cov_EE.diagonal()) for cov_EE in covariances),
                "sie_prediction": hinge(covariance_of(moved).diagonal()),
                "sie_covariance": sum(off_diagonal(cov_EE) for cov_EE in covariances),
            }
            gain = (F.cosine_similarity(moved, e2) - F.cosine_similarity(e1, e2)).mean().detach()
        return AwareOutput({name: every[name] for name in self.config.weights}, {"sie_gain": gain})  # type: ignore[misc]

    def embed_view(self, f_BD: Tensor) -> Tensor:
        """Embeddings [B, E] of the equivariant half of features."""
        return self.equivariant(f_BD.float().chunk(2, 1)[1]).float()

    def predict_view(self, x_BE: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        """W(a_to - a_from) x [B, E]. The products with each column's matrix, [B, n, E], are smaller than B matrices."""
        with torch.autocast(x_BE.device.type, enabled=False):
            g_Bn = F.pad(a_to_Bn - a_from_Bn, (0, 1), value=1.0)
            return (g_Bn[:, :, None] * torch.einsum("be,noe->bno", x_BE, self.matrices_nEE)).sum(1)


def covariance_of(x_BE: Tensor) -> Tensor:
    """The unbiased covariance [E, E] over the samples of all processes, with gradient."""
    count = len(x_BE) * world_size()
    centred_BE = x_BE - sum_with_gradient(x_BE.sum(0)) / count
    return sum_with_gradient(centred_BE.T @ centred_BE) / (count - 1)


def hinge(variance_E: Tensor) -> Tensor:
    """Mean of relu(1 - standard deviation)."""
    return F.relu(1 - (variance_E + 1e-4).sqrt()).mean()


def off_diagonal(covariance_EE: Tensor) -> Tensor:
    """Sum of the squared elements off the diagonal, divided by their number of rows."""
    return (covariance_EE.square().sum() - covariance_EE.diagonal().square().sum()) / len(covariance_EE)
