"""CASSLE: a projector that is told how its view was augmented (Przewiezlikowski 2024, arXiv 2306.06082).

The condition omega of a view goes through a small network gamma into the projector's input. For evaluation only the
backbone is kept, so a run is exported without either.

Shape suffixes: B batch, D features, E embedding, n columns of the condition, G width of gamma.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastaugself_kernels import DESCRIPTORS

from ..errors import UsageError
from ..models.heads import LastNorm, mlp

PUBLISHED = ("blur", "color", "color_diff", "crop", "grayscale")


@dataclass(frozen=True)
class Cassle:
    """Conditioning of the projector on each view's own augmentation parameters."""

    inject: Literal["none", "concat", "add", "multiply", "hypernetwork"] = "none"
    """How the condition enters the projector: not at all, concatenated to the features (the published default), added
    to them, multiplied with them, or as the weights of the projector's last layer."""
    treatment: Literal["mlp", "raw"] = "mlp"
    """What the condition goes through first: an MLP, or nothing (concatenation only)."""
    depth: int = 6
    """Layers of that MLP."""
    width: int = 64
    """Its width."""
    include: tuple[str, ...] = PUBLISHED
    """Parts of the condition: blur, color, color_diff, crop, flip, grayscale."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.include) - set(DESCRIPTORS))
        if unknown or not self.include:
            raise UsageError(f"--cassle.include takes parts of {', '.join(DESCRIPTORS)}, got {' '.join(self.include)}")
        if self.treatment == "raw" and self.inject in ("add", "multiply", "hypernetwork"):
            raise UsageError(f"--cassle.inject {self.inject} needs --cassle.treatment mlp: the widths must match")
        if self.depth < 1 or self.width < 1:
            raise UsageError(f"--cassle.depth and --cassle.width must be at least 1, got {self.depth}, {self.width}")

    @property
    def columns(self) -> int:
        """Columns of the condition; 0 where projectors are not conditioned."""
        return 0 if self.inject == "none" else sum(DESCRIPTORS[name] for name in self.include)


class Projector(nn.Module):
    """An MLP on features, conditioned on omega where `cassle` says so."""

    def __init__(
        self,
        widths: list[int],
        *,
        cassle: Cassle,
        hidden_norm: bool = True,
        last_norm: LastNorm = "none",
        sync: bool = False,
    ) -> None:
        super().__init__()
        self.inject = cassle.inject
        features, embedding = widths[0], widths[-1]
        self.gamma: nn.Module = nn.Identity()
        inputs = features
        if cassle.inject == "concat":
            if cassle.treatment == "mlp":
                self.gamma = _gamma(cassle, cassle.width, sync)
            inputs += cassle.width if cassle.treatment == "mlp" else cassle.columns
        elif cassle.inject in ("add", "multiply"):
            self.gamma = _gamma(cassle, features, sync)
        elif cassle.inject == "hypernetwork":
            # Every sample has its own last layer: a matrix from the last hidden width to the embedding.
            self.gamma = nn.Sequential(_gamma(cassle, cassle.width, sync), nn.ReLU(inplace=True))
            self.weights = nn.Linear(cassle.width, widths[-2] * embedding)
            nn.init.normal_(self.weights.weight, std=(widths[-2] * cassle.width) ** -0.5)
        self.hidden = mlp([inputs, *widths[1:-1]], hidden_norm=hidden_norm, last_relu=True, sync=sync)
        self.last = (
            nn.Identity()
            if cassle.inject == "hypernetwork"
            else mlp([widths[-2], embedding], last_norm=last_norm, sync=sync)
        )

    def forward(self, f_BD: Tensor, omega_Bn: Tensor | None = None) -> Tensor:
        """Embeddings [B, E]. omega_Bn: the condition, ignored where the projector is not conditioned."""
        if self.inject == "none":
            return self.last(self.hidden(f_BD))
        if omega_Bn is None:
            raise ValueError("this projector is conditioned: pass omega_Bn")
        condition = self.gamma(omega_Bn)
        if self.inject == "concat":
            f_BD = torch.cat([f_BD, condition.to(f_BD.dtype)], 1)
        elif self.inject == "add":
            f_BD = f_BD + condition
        elif self.inject == "multiply":
            f_BD = f_BD * condition
        hidden_BH = self.hidden(f_BD)
        if self.inject == "hypernetwork":
            weights_BEH = self.weights(condition).unflatten(1, (-1, hidden_BH.shape[1]))
            return torch.bmm(weights_BEH, hidden_BH.to(weights_BEH.dtype)[:, :, None])[:, :, 0]
        return self.last(hidden_BH)


def _gamma(cassle: Cassle, outputs: int, sync: bool) -> nn.Sequential:
    """Linear, batch norm, ReLU per layer; the last layer ends with its batch norm."""
    widths = [cassle.columns, *[cassle.width] * (cassle.depth - 1), outputs]
    return mlp(widths, last_norm="affine", sync=sync)
