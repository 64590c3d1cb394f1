"""Standardised descriptors of a view's parameters: zero mean and unit variance over the draws of the policy.

Shape suffixes: V views, B batch, P parameter columns, N draws, n descriptor columns.
"""

import torch
from torch import Tensor, nn

from fastaugself_kernels import DESCRIPTORS, ViewPolicy, descriptors

from ..errors import UsageError

PARTS = tuple(name for name in DESCRIPTORS if name != "color_diff")  # color_diff needs the pixels
NAMES = {"jitter": "color", "order": "color"}  # parts that vary with an augmentation of another name


class Descriptors(nn.Module):
    """Descriptors of views, standardised; `fit` sets mean and standard deviation, which are kept in checkpoints.

    include: parts of `fastaugself_kernels.DESCRIPTORS` without "color_diff". policy: its ranges give the unit of the
    colour factors, for all views. Columns without variation are 0.
    """

    mean_n: Tensor
    scale_n: Tensor

    def __init__(self, include: tuple[str, ...], policy: ViewPolicy) -> None:
        super().__init__()
        self.include, self.policy = include, policy
        self.width = sum(DESCRIPTORS[name] for name in include)
        self.register_buffer("mean_n", torch.zeros(self.width))
        self.register_buffer("scale_n", torch.ones(self.width))

    def forward(self, params_VBP: Tensor, sizes_B2: Tensor) -> Tensor:
        """Standardised descriptors, float32 [V, B, n]. sizes_B2: (height, width) of the photos."""
        return (self._raw(params_VBP, sizes_B2) - self.mean_n) * self.scale_n

    @torch.no_grad()
    def fit(self, params_VBP: Tensor, sizes_B2: Tensor) -> None:
        """Sets mean and standard deviation to those of all views of these draws."""
        x_Nn = self._raw(params_VBP, sizes_B2).flatten(0, 1).double()
        std_n = x_Nn.std(0, correction=0)
        self.mean_n.copy_(x_Nn.mean(0))
        self.scale_n.copy_(torch.where(std_n > 1e-6, 1 / std_n.clamp(min=1e-6), 0.0))

    def _raw(self, params_VBP: Tensor, sizes_B2: Tensor) -> Tensor:
        policies = (self.policy,) * params_VBP.shape[0]
        return descriptors(params_VBP, sizes_B2, policies, include=self.include)


def check_parts(option: str, include: tuple[str, ...], default: tuple[str, ...]) -> None:
    """Raises UsageError for names that are not in PARTS, or none. option: as on the command line."""
    unknown = sorted(set(include) - set(PARTS))
    if unknown or not include:
        raise UsageError(
            f"{option} takes some of {', '.join(PARTS)}, got {' '.join(unknown) or 'none'}; pass {option} "
            f"{' '.join(default)}"
        )


def varied(option: str, include: tuple[str, ...]) -> dict[str, str]:
    """What the views must vary in for these parts, as for `AwareConfig.augmentations`. option: that lists them."""
    return {NAMES.get(name, name): f"{option} {name}" for name in include}
