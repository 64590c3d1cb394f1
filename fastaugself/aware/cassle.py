"""CASSLE: a projector conditioned on its view's own augmentation parameters (Przewiezlikowski 2024, arXiv 2306.06082).

A condition encoder (gamma in the paper) encodes the descriptors of each view (omega) for the projector. Only the
backbone is evaluated and exported.

Shape suffixes: B batch, D features, H hidden, E embedding, n condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fastaugself_kernels import DESCRIPTORS

from ..errors import UsageError
from ..models.heads import Activation, LastNorm, Projector, mlp

PUBLISHED = ("blur", "color", "color_diff", "crop", "grayscale")


@dataclass(frozen=True)
class CASSLE:
    """Conditioning of the projector on each view's own augmentation parameters."""

    conditioning: Literal["none", "concat", "add", "multiply", "hypernetwork"] = "none"
    """How the projector is conditioned: none, concatenation to the features (the published default), addition,
    multiplication, or a hypernetwork that generates the weights of the projector's last layer."""
    condition_encoder: Literal["mlp", "raw"] = "mlp"
    """Encode the condition with an MLP, or use it raw (concat only)."""
    depth: int = 6
    """Number of layers of the condition encoder."""
    width: int = 64
    """Width of the condition encoder."""
    include: tuple[str, ...] = PUBLISHED
    """Descriptors in the condition: blur, color, color_diff, crop, flip, grayscale, jitter, order, rotation,
    solarize."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.include) - set(DESCRIPTORS))
        if unknown or not self.include:
            raise UsageError(
                f"--cassle.include takes some of {', '.join(DESCRIPTORS)}, got {' '.join(unknown) or 'none'}; pass "
                f"--cassle.include {' '.join(PUBLISHED)}"
            )
        if self.condition_encoder == "raw" and self.conditioning in ("add", "multiply", "hypernetwork"):
            raise UsageError(
                f"--cassle.conditioning {self.conditioning} needs a condition with the width of the features; pass "
                "--cassle.condition-encoder mlp"
            )
        for name in ("depth", "width"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"--cassle.{name} must be at least 1, got {getattr(self, name)}; pass --cassle.{name} "
                    f"{getattr(CASSLE, name)}"
                )

    @property
    def condition_dim(self) -> int:
        """Width of the condition; 0 without conditioning."""
        return 0 if self.conditioning == "none" else sum(DESCRIPTORS[name] for name in self.include)


def projector_type(cassle: CASSLE) -> Callable[..., Projector]:
    """The projector factory for `BuildContext`: `ConditionedProjector`, or `Projector` without conditioning."""
    return partial(ConditionedProjector, cassle) if cassle.condition_dim else Projector


class ConditionedProjector(Projector):
    """A projector conditioned on the augmentation parameters of its own view.

    cassle: options, with `conditioning` other than "none". Other arguments as for `Projector`.
    """

    def __init__(
        self,
        cassle: CASSLE,
        widths: list[int],
        *,
        hidden_norm: bool = True,
        last_norm: LastNorm = "none",
        sync: bool = False,
        activation: Activation = "relu",
    ) -> None:
        nn.Module.__init__(self)  # layers are built here instead, in the order of the published code
        self.conditioning = cassle.conditioning
        features, embedding = widths[0], widths[-1]
        self.condition_encoder: nn.Module = nn.Identity()
        inputs = features
        if cassle.conditioning == "concat":
            if cassle.condition_encoder == "mlp":
                self.condition_encoder = _condition_mlp(cassle, cassle.width, sync)
            inputs += cassle.width if cassle.condition_encoder == "mlp" else cassle.condition_dim
        elif cassle.conditioning in ("add", "multiply"):
            self.condition_encoder = _condition_mlp(cassle, features, sync)
        elif cassle.conditioning == "hypernetwork":
            # Generates the last layer of each sample: a matrix from the last hidden width to the embedding.
            self.condition_encoder = nn.Sequential(_condition_mlp(cassle, cassle.width, sync), nn.ReLU(inplace=True))
            self.weights = nn.Linear(cassle.width, widths[-2] * embedding)
            nn.init.normal_(self.weights.weight, std=(widths[-2] * cassle.width) ** -0.5)
        hidden = [inputs, *widths[1:-1]]
        self.hidden = mlp(hidden, hidden_norm=hidden_norm, last_relu=True, sync=sync, activation=activation)
        self.last = (
            nn.Identity()
            if cassle.conditioning == "hypernetwork"
            else mlp([widths[-2], embedding], last_norm=last_norm, sync=sync)
        )

    def forward(self, f_BD: Tensor, condition_Bn: Tensor | None = None) -> Tensor:
        """Embeddings [B, E] of features [B, D] and the view's descriptors [B, n].

        Raises ValueError if condition_Bn is None.
        """
        if condition_Bn is None:
            raise ValueError("this projector is conditioned: pass condition_Bn")
        condition = self.condition_encoder(condition_Bn)
        if self.conditioning == "concat":
            f_BD = torch.cat([f_BD, condition.to(f_BD.dtype)], 1)
        elif self.conditioning == "add":
            f_BD = f_BD + condition
        elif self.conditioning == "multiply":
            f_BD = f_BD * condition
        hidden_BH = self.hidden(f_BD)
        if self.conditioning == "hypernetwork":
            weights_BEH = self.weights(condition).unflatten(1, (-1, hidden_BH.shape[1]))
            return torch.bmm(weights_BEH, hidden_BH.to(weights_BEH.dtype)[:, :, None])[:, :, 0]
        return self.last(hidden_BH)


def _condition_mlp(cassle: CASSLE, outputs: int, sync: bool) -> nn.Sequential:
    """An MLP with batch norm and ReLU after each layer, except for no ReLU after the last."""
    widths = [cassle.condition_dim, *[cassle.width] * (cassle.depth - 1), outputs]
    return mlp(widths, last_norm="affine", sync=sync)
