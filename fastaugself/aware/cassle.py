"""CASSLE: a projector conditioned on its view's own augmentation parameters (Przewiezlikowski 2024, arXiv 2306.06082).

A condition encoder (gamma in the paper) encodes the descriptors of each view (omega) for the projector. Only the
backbone is evaluated and exported.

Shape suffixes: B batch, D features, H hidden, E embedding, n condition; I inputs and O outputs of a layer, K encoded
condition, J = (I + 1)(K + 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import DESCRIPTORS

from ..errors import UsageError
from ..models.heads import Activation, LastNorm, Projector, mlp

PUBLISHED = ("blur", "color", "color_diff", "crop", "grayscale")


@dataclass(frozen=True)
class CASSLE:
    """Conditioning of the projector on each view's own augmentation parameters."""

    conditioning: Literal["none", "concat", "add", "multiply", "hypernetwork", "hypernetwork-published"] = "none"
    """How the projector is conditioned: none, concatenation to the features (the published default), addition,
    multiplication, a hypernetwork that generates the matrix of the projector's last layer, or one that generates the
    matrices and biases of all its layers, without batch norm, as published (width + 1 times the projector's
    parameters)."""
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
        if self.condition_encoder == "raw" and self.conditioning not in ("none", "concat"):
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
    """The projector factory for `BuildContext`: a conditioned projector, or `Projector` without conditioning."""
    if not cassle.condition_dim:
        return Projector
    kind = GeneratedProjector if cassle.conditioning == "hypernetwork-published" else ConditionedProjector
    return partial(kind, cassle)


class ConditionedProjector(Projector):
    """A projector conditioned on the augmentation parameters of its own view.

    cassle: options, with `conditioning` other than "none" and "hypernetwork-published". Other arguments as for
    `Projector`.
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


class GeneratedProjector(Projector):
    """A projector whose layers a hypernetwork generates for each sample from the encoded condition c:

        z = W_L(c) relu(... relu(W_1(c) f + b_1(c)) ...) + b_L(c)

    cassle, widths: as for `ConditionedProjector`. There is no batch norm, so the other options of `Projector` but the
    activation have no effect.
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
        nn.Module.__init__(self)
        self.hidden: nn.ModuleList
        self.condition_encoder = _condition_mlp(cassle, cassle.width, sync)
        *hidden, last = [GeneratedLinear(*pair, condition=cassle.width) for pair in pairwise(widths)]
        self.hidden, self.last = nn.ModuleList(hidden), last
        self.activation = F.relu if activation == "relu" else F.gelu

    def forward(self, f_BD: Tensor, condition_Bn: Tensor | None = None) -> Tensor:
        """As `ConditionedProjector.forward`."""
        if condition_Bn is None:
            raise ValueError("this projector is conditioned: pass condition_Bn")
        c_BK = self.condition_encoder(condition_Bn)
        for layer in self.hidden:
            f_BD = self.activation(layer(f_BD, c_BK))
        z_BE: Tensor = self.last(f_BD, c_BK)
        return z_BE


class GeneratedLinear(nn.Module):
    """y = W(c) x + b(c), with matrix and bias linear in the condition c plus a constant, as from one linear layer.

    inputs, outputs, condition: widths of x, y and c. There are O J parameters. The matrices of the samples are not
    made: the outer product of [x; 1] and [c; 1] takes B J values instead of B I O.
    """

    def __init__(self, inputs: int, outputs: int, *, condition: int) -> None:
        super().__init__()
        self.weight_OJ = nn.Parameter(torch.empty(outputs, (inputs + 1) * (condition + 1)))
        # Entries of W(c) have a variance of 1 / inputs where those of c have a variance of 1, as after a batch norm.
        nn.init.normal_(self.weight_OJ, std=(inputs * (condition + 1)) ** -0.5)

    def forward(self, x_BI: Tensor, c_BK: Tensor) -> Tensor:
        """The outputs [B, O] of inputs [B, I] and encoded conditions [B, K]."""
        x, c = (F.pad(t, (0, 1), value=1.0) for t in (x_BI, c_BK.to(x_BI.dtype)))
        return F.linear((x[:, :, None] * c[:, None, :]).flatten(1), self.weight_OJ)


def _condition_mlp(cassle: CASSLE, outputs: int, sync: bool) -> nn.Sequential:
    """An MLP with batch norm and ReLU after each layer, except for no ReLU after the last."""
    widths = [cassle.condition_dim, *[cassle.width] * (cassle.depth - 1), outputs]
    return mlp(widths, last_norm="affine", sync=sync)
