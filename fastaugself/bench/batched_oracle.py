"""The oracle on a batch: its functions under vmap; every branch is computed and then selected, without host sync.

This is plain PyTorch without custom kernels, in a form that can be compiled and captured in a CUDA graph.

Shape suffixes: B batch, C channels, H W, P parameter columns.
"""

import torch
from torch import Tensor

from fastaugself_kernels.params import (
    FLIP,
    GRAY,
    HEIGHT,
    JITTER,
    LEFT,
    ORDER,
    SIGMA,
    TOP,
    WIDTH,
)
from fastaugself_kernels.reference import ADJUST, gaussian_blur, grayscale


def augment_batched(
    pixels_BHWC: Tensor,
    params_BP: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    size: int,
    rounding: bool = True,
    blur_kernel: int = 23,
) -> Tensor:
    """One view of each uint8 image, float32 [B, 3, size, size], as `augment` makes it without rotation and solarize."""

    def view(image_HWC: Tensor, row_P: Tensor) -> Tensor:
        x_CHW = _crop(image_HWC, row_P, size)
        x_CHW = (torch.floor(x_CHW + 0.5) if rounding else x_CHW).div(255).clamp(0, 1)
        x_CHW = torch.where(row_P[FLIP] > 0.5, x_CHW.flip(2), x_CHW)
        x_CHW = torch.where(row_P[JITTER] > 0.5, _jitter(x_CHW, row_P), x_CHW)
        x_CHW = torch.where(row_P[GRAY] > 0.5, grayscale(x_CHW).expand(3, -1, -1), x_CHW)
        blurred_CHW = gaussian_blur(x_CHW, row_P[SIGMA].clamp(min=0.1), blur_kernel)  # type: ignore[arg-type]
        return (torch.where(row_P[SIGMA] > 0, blurred_CHW, x_CHW) - mean[:, None, None]) / std[:, None, None]

    return torch.vmap(view)(pixels_BHWC, params_BP)


def _crop(image_HWC: Tensor, row_P: Tensor, size: int) -> Tensor:
    """Crop and antialiased resize as two products with the taps of the triangle filter, [3, size, size] in 0..255."""
    H, W, _ = image_HWC.shape
    rows = _taps(row_P[TOP], row_P[HEIGHT], H, size)
    columns = _taps(row_P[LEFT], row_P[WIDTH], W, size)
    return rows @ image_HWC.permute(2, 0, 1).float() @ columns.T


def _taps(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Weights of the input pixels in the output pixels of one axis, [size, pixels], as F.interpolate with antialias."""
    scale = length / size
    at = torch.arange(pixels, device=start.device) + 0.5
    centre = start + (torch.arange(size, device=start.device) + 0.5) * scale
    weights = (1 - (at[None] - centre[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = torch.where((at > start) & (at < start + length), weights, torch.zeros_like(weights))
    return weights / weights.sum(1, keepdim=True)


def _jitter(x_CHW: Tensor, row_P: Tensor) -> Tensor:
    """The four adjustments in the row's order: each step computes all four and selects one."""
    order = row_P[ORDER].long()
    for place in range(4):
        op = (order >> (2 * place)) & 3
        kept_CHW = x_CHW
        for k, (adjust, column) in enumerate(ADJUST):
            kept_CHW = torch.where(op == k, adjust(x_CHW, row_P[column]), kept_CHW)  # type: ignore[arg-type]
        x_CHW = kept_CHW
    return x_CHW
