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
from .backends import INSTALLED, Backend, Options, Rounding
from .params import (
    HEIGHT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LEFT,
    ROTATION,
    TOP,
    WIDTH,
    P,
)
from .reference import augment_reference

DEBUG = os.environ.get("FASTAUGSELF_DEBUG", "0") not in ("", "0")
"""Whether to check parameter rows on a GPU too, by device-side assertions (one or two extra launches per check)."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


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
    backend: "triton" (CUDA), "numba" (CPU), "reference" (any device), or "auto".

    Returns views_VBCHW of `dtype`, each view channels-last contiguous, and with `color_shift` also shift_VB3 float32.
    Raises ValueError for a wrong dtype, shape, layout or device, and on the CPU for rows that cannot be applied (a
    crop outside its image, NaN). On CUDA the values of rows are not read, to keep the call free of host syncs; with
    FASTAUGSELF_DEBUG=1 in the environment they are checked on the device: a wrong one ends the process with a
    device-side assertion that says what is wrong.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(pixels, offsets_B, sizes_B2, params_VBP, height, width, mean, std, dtype, channels, rounding, blur_kernel)
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
        options=Options(antialias, rounding, blur_kernel, solarize_before_gray),
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
    rounding, antialias, blur_kernel, solarize_before_gray, backend,
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


def _check(
    pixels: Tensor,
    offsets_B: Tensor | None,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels: int,
    rounding: str,
    blur_kernel: int,
) -> None:
    """Checks of the arguments that read no value from the device."""
    for name, value in (
        ("pixels", pixels),
        ("offsets_B", offsets_B),
        ("sizes_B2", sizes_B2),
        ("params_VBP", params_VBP),
    ):
        if not isinstance(value, Tensor) and not (value is None and name == "offsets_B"):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}; pass torch.as_tensor({name})")
    if params_VBP.ndim != 3 or params_VBP.shape[2] != P or params_VBP.dtype != torch.float32:
        raise ValueError(
            f"params_VBP must be float32 [V, B, {P}], got {params_VBP.dtype} {list(params_VBP.shape)}; "
            "draw them with sample_params"
        )
    if params_VBP.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "params_VBP requires a gradient, but augment has none for its parameters; pass params_VBP.detach()"
        )
    V, B = params_VBP.shape[0], params_VBP.shape[1]
    if V == 0 or B == 0:
        raise ValueError(f"params_VBP has {V} views of {B} samples; at least one of each is needed")
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 (as decoded, not normalised), got {pixels.dtype}")
    if not pixels.is_contiguous():
        raise ValueError("pixels must be contiguous; pass pixels.contiguous()")
    if offsets_B is None:
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.shape[0] != B:
            raise ValueError(
                f"without offsets_B, pixels must be [{B}, H, W, 3] (RGB, channels last), got {list(pixels.shape)}"
            )
    else:
        if pixels.ndim != 1:
            raise ValueError(f"with offsets_B, pixels must be flat [N], got {list(pixels.shape)}; pass pixels.view(-1)")
        if offsets_B.dtype != torch.int64 or offsets_B.shape != (B,):
            raise ValueError(f"offsets_B must be int64 [{B}] (bytes), got {offsets_B.dtype} {list(offsets_B.shape)}")
    if sizes_B2.dtype not in (torch.int32, torch.int64) or sizes_B2.shape != (B, 2):
        raise ValueError(
            f"sizes_B2 must be int32 or int64 [{B}, 2] (height, width), got {sizes_B2.dtype} {list(sizes_B2.shape)}"
        )
    for name, tensor in (("offsets_B", offsets_B), ("sizes_B2", sizes_B2), ("params_VBP", params_VBP)):
        if tensor is not None and tensor.device != pixels.device:
            raise ValueError(f"{name} is on {tensor.device}, pixels on {pixels.device}; move one of them")
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1 pixel, got {(height, width)}")
    if len(mean) != 3 or len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError(f"mean and std must be three values each, std above 0, got {tuple(mean)} and {tuple(std)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    if channels not in (3, 4):
        raise ValueError(f"channels must be 3 (RGB) or 4 (RGB and zeros), got {channels!r}")
    if rounding not in ("uint8", "none"):
        raise ValueError(f'rounding must be "uint8" or "none", got {rounding!r}')
    if blur_kernel < 1 or blur_kernel % 2 == 0 or blur_kernel // 2 >= min(height, width):
        raise ValueError(
            f"blur_kernel must be odd and below twice the output size {(height, width)} (its borders are reflected), "
            f"got {blur_kernel}"
        )


def check_rows(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
) -> None:
    """Checks of the values: images must be inside `pixels`, crops inside their images."""
    larger_B = sizes_B2[:, 1].long() * 3 > strides_B
    if pixels.ndim == 4:
        larger_B |= sizes_B2[:, 0] > pixels.shape[1]
    if _any(larger_B, "an image is larger than its place in pixels: sizes_B2 is (height, width)"):
        b = int(larger_B.nonzero()[0])
        place = list(pixels.shape[1:3]) if pixels.ndim == 4 else f"{int(strides_B[b])} bytes a row"
        raise ValueError(
            f"image {b} of (height, width) = {sizes_B2[b].tolist()} does not fit its place in pixels, {place}; pass "
            "sizes_B2 as (height, width), not (width, height)"
        )
    ends_B = offsets_B + strides_B.long() * (sizes_B2[:, 0].long() - 1) + sizes_B2[:, 1].long() * 3
    wrong_B = (offsets_B < 0) | (sizes_B2.amin(1) < 1) | (ends_B > pixels.numel())
    if _any(wrong_B, "an image does not fit the bytes of pixels: see offsets_B and sizes_B2"):
        b = int(wrong_B.nonzero()[0])
        raise ValueError(
            f"image {b} at offset {offsets_B[b].item()} of size {sizes_B2[b].tolist()} does not fit the "
            f"{pixels.numel()} bytes of pixels; sizes are (height, width), offsets in bytes"
        )
    unknown_VBP = ~torch.isfinite(params_VBP)
    if _any(unknown_VBP, "params_VBP contains NaN or Inf"):
        v, b, p = unknown_VBP.nonzero()[0].tolist()
        raise ValueError(f"params_VBP[{v}, {b}, {p}] is {params_VBP[v, b, p].item()}; NaN and Inf cannot be applied")
    y, x, h, w = (params_VBP[..., column] for column in (TOP, LEFT, HEIGHT, WIDTH))
    H, W = sizes_B2.float().unbind(1)
    outside_VB = (y < 0) | (x < 0) | (h < 1) | (w < 1) | (y + h > H) | (x + w > W)
    if _any(outside_VB, "a row of params_VBP crops outside its image"):
        v, b = outside_VB.nonzero()[0].tolist()
        raise ValueError(
            f"params_VBP[{v}, {b}] crops (top, left, height, width) = {params_VBP[v, b, :4].tolist()} outside its "
            f"image of (height, width) = {sizes_B2[b].tolist()}"
        )
    turned_VB = params_VBP[..., ROTATION].long() % 2 == 1
    if height != width and _any(turned_VB, "a quarter turn needs a square output"):
        raise ValueError(f"a quarter turn needs a square output, got size {(height, width)}")


def _any(wrong: Tensor, message: str) -> bool:
    """Whether any is True. On a GPU, to avoid a host sync: False, and a device-side assertion that none is."""
    if wrong.device.type == "cpu":
        return bool(wrong.any())
    torch._assert_async(~wrong.any(), message)
    return False
