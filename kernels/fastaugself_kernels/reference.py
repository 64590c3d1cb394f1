"""The oracle: every operation in plain PyTorch with torchvision's float-tensor semantics, one view at a time.

This is the specification of the other back-ends. It is slow and meant to be read. Images are float32 CHW in [0, 1].

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import Options
from .params import (
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    GRAY,
    HEIGHT,
    HUE,
    JITTER,
    LEFT,
    ORDER,
    ROTATION,
    SATURATION,
    SIGMA,
    SOLARIZE,
    TOP,
    WIDTH,
)


def resize_crop(
    image_HWC: Tensor, box: Sequence[int], size: tuple[int, int], *, antialias: bool, rounding: bool
) -> Tensor:
    """Crops (top, left, height, width) from uint8 HWC and resizes it bilinearly; `rounding` to whole 1/255 as PIL."""
    top, left, height, width = box
    x_CHW = image_HWC[top : top + height, left : left + width].permute(2, 0, 1).float()
    x_CHW = F.interpolate(x_CHW[None], size=size, mode="bilinear", align_corners=False, antialias=antialias)[0]
    if rounding:
        x_CHW = torch.floor(x_CHW + 0.5)
    return (x_CHW / 255).clamp(0, 1)


def grayscale(x_CHW: Tensor) -> Tensor:
    """ITU-R 601 luma with torchvision's weights, [1, H, W]."""
    r, g, b = x_CHW.unbind(0)
    return (0.2989 * r + 0.587 * g + 0.114 * b)[None]


def adjust_brightness(x_CHW: Tensor, factor: float) -> Tensor:
    return (factor * x_CHW).clamp(0, 1)


def adjust_contrast(x_CHW: Tensor, factor: float) -> Tensor:
    """Blends with the mean luma of the image as it is at this step."""
    return (factor * x_CHW + (1 - factor) * grayscale(x_CHW).mean()).clamp(0, 1)


def adjust_saturation(x_CHW: Tensor, factor: float) -> Tensor:
    return (factor * x_CHW + (1 - factor) * grayscale(x_CHW)).clamp(0, 1)


def adjust_saturation_hsv(x_CHW: Tensor, factor: float) -> Tensor:
    """Multiplies S of HSV by the factor and clamps it to [0, 1], as kornia 0.4.1's `adjust_saturation`.

    Hue and V = max stay, so each channel's distance from max is multiplied by one number, the factor or, where S would
    exceed 1, 1 / S = max / (max - min): the closed form of RGB -> HSV -> RGB.
    """
    high, low = x_CHW.amax(0), x_CHW.amin(0)
    # Where the chroma is 0 there is no distance to multiply.
    scale = (high / (high - low).clamp(min=1e-30)).clamp(max=max(factor, 0))
    return (x_CHW + (high - x_CHW) * (1 - scale)).clamp(0, 1)


def adjust_hue(x_CHW: Tensor, turns: float) -> Tensor:
    """Rotates the hue of the HSV hexcone.

    With h the hue in sixths of a turn, channel n in (5, 3, 1) is max - (max - min) * clamp(min(k, 4 - k), 0, 1),
    k = (n + h) mod 6: the closed form of RGB -> HSV -> RGB.
    """
    r, g, b = x_CHW.unbind(0)
    high, low = x_CHW.amax(0), x_CHW.amin(0)
    chroma = high - low
    scale = 1 / torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    h = torch.where(high == r, (g - b) * scale, torch.where(high == g, 2 + (b - r) * scale, 4 + (r - g) * scale))
    h = h + 6 * turns
    k_CHW = torch.stack([h + 5, h + 3, h + 1]) % 6
    return high - chroma * torch.minimum(k_CHW, 4 - k_CHW).clamp(0, 1)


ADJUST: tuple[tuple[Callable[[Tensor, float], Tensor], int], ...] = (
    (adjust_brightness, BRIGHTNESS),
    (adjust_contrast, CONTRAST),
    (adjust_saturation, SATURATION),
    (adjust_hue, HUE),
)


def color_jitter(x_CHW: Tensor, row_P: Sequence[float], options: Options) -> Tensor:
    """The four adjustments in the order that the row names."""
    order = int(row_P[ORDER])
    for position in range(4):
        adjust, column = ADJUST[(order >> (2 * position)) & 3]
        if adjust is adjust_saturation and options.hsv_saturation:
            adjust = adjust_saturation_hsv
        x_CHW = adjust(x_CHW, row_P[column])
    return x_CHW


def gaussian_kernel(kernel: int, sigma: float, device: torch.device | None = None) -> Tensor:
    """`kernel` normalised taps at whole-pixel distances, float32."""
    x = torch.arange(kernel, dtype=torch.float32, device=device) - (kernel - 1) / 2
    taps = torch.exp(-0.5 * (x / sigma) ** 2)
    return taps / taps.sum()


def gaussian_blur(x_CHW: Tensor, sigma: float, kernel: int) -> Tensor:
    """Separable blur with reflected borders."""
    taps = gaussian_kernel(kernel, sigma, x_CHW.device)
    C, r = x_CHW.shape[0], kernel // 2
    x = F.pad(x_CHW[None], (r, r, r, r), mode="reflect")
    x = F.conv2d(x, taps.expand(C, 1, 1, kernel), groups=C)
    return F.conv2d(x, taps[:, None].expand(C, 1, kernel, 1), groups=C)[0]


def solarize(x_CHW: Tensor, threshold: float) -> Tensor:
    return torch.where(x_CHW >= threshold, 1 - x_CHW, x_CHW)


def before_gray(x_CHW: Tensor, row_P: Sequence[float], options: Options) -> Tensor:
    """The point operations between jitter and gray."""
    if options.solarize_before_gray and row_P[SOLARIZE] <= 1:
        x_CHW = solarize(x_CHW, row_P[SOLARIZE])
    return x_CHW


def after_blur(x_CHW: Tensor, row_P: Sequence[float], options: Options) -> Tensor:
    """The point operations between blur and normalisation."""
    if not options.solarize_before_gray and row_P[SOLARIZE] <= 1:
        x_CHW = solarize(x_CHW, row_P[SOLARIZE])
    return x_CHW


def augment_view(
    image_HWC: Tensor, row_P: Sequence[float], size: tuple[int, int], options: Options
) -> tuple[Tensor, Tensor]:
    """One view before normalisation, and the mean colour before the jitter minus after it (3 values, 0 if off)."""
    box = [int(row_P[column]) for column in (TOP, LEFT, HEIGHT, WIDTH)]
    turns = int(row_P[ROTATION])
    upright = size[::-1] if turns % 2 else size
    x_CHW = resize_crop(image_HWC, box, upright, antialias=options.antialias, rounding=options.rounding)
    x_CHW = torch.rot90(x_CHW, turns, (1, 2))
    if row_P[FLIP] > 0.5:
        x_CHW = x_CHW.flip(2)
    shift_3 = torch.zeros(3, device=x_CHW.device)
    if row_P[JITTER] > 0.5:
        jittered_CHW = color_jitter(x_CHW, row_P, options)
        shift_3 = x_CHW.mean((1, 2)) - jittered_CHW.mean((1, 2))
        x_CHW = jittered_CHW
    x_CHW = before_gray(x_CHW, row_P, options)
    if row_P[GRAY] > 0.5:
        x_CHW = grayscale(x_CHW).expand(3, -1, -1)
    if row_P[SIGMA] > 0:
        x_CHW = gaussian_blur(x_CHW, row_P[SIGMA], options.blur_kernel)
    return after_blur(x_CHW, row_P, options), shift_3


def augment_reference(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    params_VBP: Tensor,
    views_VBCHW: Tensor,
    shift_VB3: Tensor | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    options: Options,
) -> None:
    """Fills `views_VBCHW` (any float dtype, any layout) and `shift_VB3` from flat uint8 `pixels`.

    views_VBCHW: a fourth channel is filled with zeros.
    offsets_B: byte offset of each image. strides_B: bytes per image row. Other arguments as in `augment`.
    """
    V, B, _, H, W = views_VBCHW.shape
    rows_VBP = params_VBP.tolist()
    mean_C11 = torch.tensor(mean, device=pixels.device)[:, None, None]
    std_C11 = torch.tensor(std, device=pixels.device)[:, None, None]
    for b, (offset, stride) in enumerate(zip(offsets_B.tolist(), strides_B.tolist(), strict=True)):
        rows = (pixels.numel() - offset) // stride
        image_HWC = pixels[offset : offset + rows * stride].view(rows, stride // 3, 3)
        for v in range(V):
            x_CHW, shift_3 = augment_view(image_HWC, rows_VBP[v][b], (H, W), options)
            views_VBCHW[v, b, :3].copy_((x_CHW - mean_C11) / std_C11)
            views_VBCHW[v, b, 3:] = 0
            if shift_VB3 is not None:
                shift_VB3[v, b] = shift_3
