"""Applying parameters: one operation registered with torch, with several back-ends.

The operation is opaque to torch.compile (cast, layout and normalisation happen inside, nothing is left to fuse), so
`augment` works under `fullgraph=True`, in FakeTensor tracing and in CUDA graphs.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, N bytes.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from . import memory
from ._ops import register
from .arguments import check_arguments, check_rows
from .backends import INSTALLED, Backend, Options, Rounding, Saturation
from .params import IMAGENET_MEAN, IMAGENET_STD
from .reference import augment_reference

DEBUG = os.environ.get("FASTAUGSELF_DEBUG", "0") not in ("", "0")
"""Whether to check parameter rows on a GPU too, by device-side assertions (one or two extra launches per check)."""


@overload
def augment(
    pixels: Tensor,
    offsets_B: Tensor | None,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    *,
    size: int | tuple[int, int],
    mean: Sequence[float] = ...,
    std: Sequence[float] = ...,
    dtype: torch.dtype = ...,
    channels: Literal[3, 4] = ...,
    color_shift: Literal[False] = ...,
    rounding: Rounding = ...,
    antialias: bool = ...,
    blur_kernel: int = ...,
    solarize_before_gray: bool = ...,
    saturation: Saturation = ...,
    backend: Backend = ...,
) -> Tensor: ...
@overload
def augment(
    pixels: Tensor,
    offsets_B: Tensor | None,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    *,
    size: int | tuple[int, int],
    mean: Sequence[float] = ...,
    std: Sequence[float] = ...,
    dtype: torch.dtype = ...,
    channels: Literal[3, 4] = ...,
    color_shift: Literal[True],
    rounding: Rounding = ...,
    antialias: bool = ...,
    blur_kernel: int = ...,
    solarize_before_gray: bool = ...,
    saturation: Saturation = ...,
    backend: Backend = ...,
) -> tuple[Tensor, Tensor]: ...


def augment(
    pixels: Tensor,
    offsets_B: Tensor | None,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    *,
    size: int | tuple[int, int],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
    channels: Literal[3, 4] = 3,
    color_shift: bool = False,
    rounding: Rounding = "uint8",
    antialias: bool = True,
    blur_kernel: int = 23,
    solarize_before_gray: bool = False,
    saturation: Saturation = "blend",
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Makes every view of every image from its parameter row.

    Order: crop and resize (bilinear) -> rounding -> rotation -> flip -> jitter in the row's order -> gray -> blur
    (reflected borders) -> solarize -> normalise -> cast.

    pixels: uint8, either flat [N] with tight HWC RGB images at `offsets_B`, or padded [B, H, W, 3] with None there.
    offsets_B: int64 [B], first byte of each image.
    sizes_B2: int32 or int64 [B, 2], (height, width) of each image in pixels, in this order. PIL's `image.size` is
        (width, height): in a flat buffer an image read with the two exchanged fits just as well, so that its garbled
        views are refused by nothing. `collate_images` makes buffers, offsets and sizes that belong together.
    params_VBP: float32 [V, B, 16], rows as `sample_params` draws them (columns: `COLUMNS`), or your own.
    size: side of the output in pixels, or (height, width): that of the policies, because sigma is in its pixels.
    mean, std: three values each, of images in [0, 1].
    dtype: torch.float32, float16 or bfloat16; everything inside is float32.
    channels: 3, or 4 for a fourth channel of zeros, with which some first convolutions are faster.
    color_shift: also return the mean colour [V, B, 3] before the jitter minus after it, in [0, 1] (0 where the jitter
        is off): CASSLE's `color_diff`.
    rounding: "uint8" rounds the resized image to whole 1/255, as PIL and the published recipes do; "none" does not.
    antialias: whether the triangle filter widens when it shrinks the image, as PIL's does.
    blur_kernel: taps of the Gaussian, odd (23 in the published ImageNet recipes, 9 at 96 px).
    solarize_before_gray: solarize between jitter and gray (AugSelf's ablation) instead of after the blur (BYOL).
    saturation: of the jitter. "blend" mixes with the luma, as torchvision and PIL do; "hsv" multiplies S of HSV and
        clamps it to [0, 1], as kornia 0.4.1 does, and with it AugSelf's and CASSLE's code.
    backend: "triton" (CUDA), "numba" (CPU), "reference" (any device), or "auto".

    Returns views_VBCHW of `dtype`, each view channels-last contiguous, and with `color_shift` also shift_VB3 float32.
    Raises ValueError for a wrong dtype, shape, layout or device, and on the CPU for rows that cannot be applied (a
    crop outside its image, NaN). On CUDA the values of rows are not read, to keep the call free of host syncs; with
    FASTAUGSELF_DEBUG=1 in the environment they are checked on the device: a wrong one ends the process with a
    device-side assertion that says what is wrong.
    """
    height, width = (size, size) if isinstance(size, int) else size
    check_arguments(
        pixels, offsets_B, sizes_B2, params_VBP, height, width, mean, std, dtype, channels, rounding, blur_kernel,
        saturation,
    )  # fmt: skip
    if offsets_B is None:
        B, rows, columns, _ = pixels.shape
        offsets_B = torch.arange(B, dtype=torch.int64, device=pixels.device) * (rows * columns * 3)
        strides_B = torch.full((B,), columns * 3, dtype=torch.int32, device=pixels.device)
    else:
        strides_B = (sizes_B2[:, 1] * 3).to(torch.int32)
    views_VBHWC, shift_VB3 = augment_op(
        pixels,
        offsets_B,
        strides_B,
        sizes_B2.to(torch.int32),
        params_VBP.detach(),
        height,
        width,
        [float(m) for m in mean],
        [float(s) for s in std],
        dtype,
        channels,
        color_shift,
        rounding == "uint8",
        antialias,
        blur_kernel,
        solarize_before_gray,
        saturation == "hsv",
        _resolve(backend, pixels.device),
    )
    views_VBCHW = views_VBHWC.permute(0, 1, 4, 2, 3)
    return (views_VBCHW, shift_VB3) if color_shift else views_VBCHW


def _augment(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels: int,
    color_shift: bool,
    rounding: bool,
    antialias: bool,
    blur_kernel: int,
    solarize_before_gray: bool,
    hsv_saturation: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The registered operation: views [V, B, H, W, C] and colour shift [V, B, 3], or [0, B, 3] if not wanted.

    pixels: flat, or [B, rows, columns, 3] as the caller has them, for the checks.
    """
    rows = (pixels, offsets_B, strides_B, sizes_B2, params_VBP, height, width)
    if (not pixels.is_cuda or DEBUG) and not (backend == "numba" and _rows_fit(*rows)):
        check_rows(*rows)
    V, B, _ = params_VBP.shape
    views_VBHWC = _allocate(backend, V, B, height, width, channels, dtype=dtype, device=pixels.device)
    shift_VB3 = torch.empty(V if color_shift else 0, B, 3, dtype=torch.float32, device=pixels.device)
    run = _implementation(backend)
    run(
        pixels.view(-1),
        offsets_B,
        strides_B,
        params_VBP,
        views_VBHWC.permute(0, 1, 4, 2, 3),
        shift_VB3 if color_shift else None,
        mean=mean,
        std=std,
        options=Options(antialias, rounding, blur_kernel, solarize_before_gray, hsv_saturation),
    )
    return views_VBHWC, shift_VB3


def _rows_fit(*rows: Any) -> bool:
    from .numba import rows_fit

    return rows_fit(*rows)


def _implementation(backend: str) -> Callable[..., None]:
    if backend == "triton":
        from .triton import augment_triton

        return augment_triton
    if backend == "numba":
        from .numba import augment_numba

        return augment_numba
    return augment_reference


def _allocate(backend: str, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised memory for the views."""
    if backend == "numba":
        return memory.empty(*shape, dtype=dtype)
    return torch.empty(*shape, dtype=dtype, device=device)


def _fake(  # type: ignore[no-untyped-def]
    pixels, offsets_B, strides_B, sizes_B2, params_VBP, height, width, mean, std, dtype, channels, color_shift,
    rounding, antialias, blur_kernel, solarize_before_gray, hsv_saturation, backend,
):  # fmt: skip
    V, B, _ = params_VBP.shape
    return (
        torch.empty(V, B, height, width, channels, dtype=dtype, device=pixels.device),
        torch.empty(V if color_shift else 0, B, 3, dtype=torch.float32, device=pixels.device),
    )


augment_op = register("augment", _augment, _fake)


def _resolve(backend: str, device: torch.device) -> str:
    """The back-end to run; a ValueError says what to install or to pass instead."""
    if backend == "auto":
        if device.type == "cuda":
            backend = "triton"
        else:
            backend = "numba" if device.type == "cpu" and INSTALLED["numba"] else "reference"
    if backend not in ("triton", "numba", "reference"):
        raise ValueError(f'backend must be "auto", "triton", "numba" or "reference", got {backend!r}')
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f'backend "numba" runs on the CPU, the pixels are on {device}; pass backend="auto"')
    if backend != "reference" and not INSTALLED[backend]:
        raise ValueError(f'backend "{backend}" needs {backend}: pip install {backend}, or pass backend="reference"')
    return backend
