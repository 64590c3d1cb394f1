"""Predictors that know the action: BYOL's, SimSiam's, NNCLR's or MoCo v3's reads the difference of the parameters.

The baseline of conditional BYOL in seq-JEPA (Ghaemi et al. 2025, arXiv 2505.03176, table 1). With the embedding z_1 and
the standardised parameters a_1, a_2 of both views:

    p_1 = predictor([z_1; BN(Linear(a_2 - a_1))])

The target stays that of the method. On 3DIEBench the relative parameters became more predictable from the features (R2
0.12 to 0.31), at 0.3 % less accuracy. CASSLE conditions the projector on each view's own parameters instead.

Shape suffixes: V views, B batch, E embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from ..models.heads import LastNorm, Predictor
from ..models.norm import batch_norm_1d
from .descriptors import Descriptors, check_parts

INCLUDE = ("blur", "color", "crop", "flip", "grayscale")


@dataclass(frozen=True)
class ConditionalPredictor:
    """Conditioning of the predictor on the difference of both views' parameters (BYOL, SimSiam, NNCLR, MoCo v3)."""

    conditioning: Literal["none", "concat"] = "none"
    """How the predictor is conditioned: none, or concatenation to the embedding."""
    width: int = 128
    """Width of the encoded difference."""
    include: tuple[str, ...] = INCLUDE
    """Parameters in the difference: blur, color, crop, flip, grayscale, jitter, order, rotation, solarize."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(
                f"--predictor.width must be at least 1, got {self.width}; pass --predictor.width "
                f"{ConditionalPredictor.width}"
            )
        check_parts("--predictor.include", self.include, INCLUDE)

    @property
    def enabled(self) -> bool:
        """Whether the predictor is conditioned."""
        return self.conditioning != "none"


def predictor_type(options: ConditionalPredictor, policy: ViewPolicy) -> Callable[..., Predictor]:
    """The predictor factory for `BuildContext`. policy: of the first view."""
    return partial(ConditionedPredictor, options, policy) if options.enabled else Predictor


class ConditionedPredictor(Predictor):
    """A predictor that reads the difference of the parameters.

    options, policy: as for `predictor_type`. Other arguments as for `Predictor`.
    """

    def __init__(
        self,
        options: ConditionalPredictor,
        policy: ViewPolicy,
        widths: list[int],
        *,
        last_norm: LastNorm = "none",
        sync: bool = False,
    ) -> None:
        super().__init__([widths[0] + options.width, *widths[1:]], last_norm=last_norm, sync=sync)
        self.descriptors = Descriptors(options.include, policy)
        self.action = nn.Sequential(
            nn.Linear(self.descriptors.width, options.width, bias=False),
            batch_norm_1d(options.width, affine=False, sync=sync),
        )

    def forward(
        self, z_BE: Tensor, params_VBP: Tensor | None = None, sizes_B2: Tensor | None = None, view: int = 0
    ) -> Tensor:
        """Predictions [B, E] of the other view. Raises ValueError without the parameters."""
        if params_VBP is None or sizes_B2 is None:
            raise ValueError("this predictor is conditioned: pass params_VBP and sizes_B2")
        a_VBn = self.descriptors(params_VBP, sizes_B2)
        action = self.action(a_VBn[1 - view] - a_VBn[view])
        return super().forward(torch.cat([z_BE, action.to(z_BE.dtype)], 1))
