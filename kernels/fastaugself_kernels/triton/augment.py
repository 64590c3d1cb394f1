"""Launches the kernels that augment a batch: their order, their shapes and their scratch memory."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backends import Options
from .color import color_constants
from .configs import Config, config
from .finish import finish_kernel
from .launch import Launch, require_device, run
from .resize import resize_kernel
from .shift import shift_kernel
from .small import small_kernel

MAX_RADIUS = 16  # of the blur: a block of 16 columns sees one block to each side


def augment_triton(
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
    """Fills `views_VBCHW` and `shift_VB3` as `augment_reference` does, without a host sync.

    views_VBCHW: each view channels-last contiguous, that is, storage [V, B, H, W, C], 3 or 4
    channels, the fourth of zeros. Images smaller than 2 GiB.
    One launch for outputs of up to 64 pixels (32 in float32), else two, and one more for the colour shift.
    """
    require_device(pixels, resize_kernel)
    if not views_VBCHW.permute(0, 1, 3, 4, 2).is_contiguous():
        raise ValueError(
            f"views_VBCHW must be channels-last contiguous, got strides {views_VBCHW.stride()}; "
            "pass torch.empty(V, B, H, W, C).permute(0, 1, 4, 2, 3)"
        )
    if options.blur_kernel // 2 > MAX_RADIUS:
        raise ValueError(
            f'blur_kernel must be at most {2 * MAX_RADIUS + 1} with backend="triton", got {options.blur_kernel}; '
            'pass a smaller one, or backend="reference"'
        )
    launches = augment_launches(
        config(pixels.device),
        pixels,
        offsets_B.contiguous(),
        strides_B.contiguous(),
        params_VBP.contiguous(),
        views_VBCHW,
        shift_VB3,
        norm=[*(1 / s for s in std), *(-m / s for m, s in zip(mean, std, strict=True))],
        options=options,
    )
    run(launches, pixels.device)


def augment_launches(
    shapes: Config,
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    params_VBP: Tensor,
    views_VBCHW: Tensor,
    shift_VB3: Tensor | None,
    *,
    norm: Sequence[float],
    options: Options,
) -> list[Launch]:
    """The launches of one `augment` call, with their scratch memory; nothing is computed yet.

    norm: red, green and blue factor, then offset, of the normalisation.
    """
    V, B, C, H, W = views_VBCHW.shape
    VB, shift, radius = V * B, shift_VB3 is not None, options.blur_kernel // 2
    half = views_VBCHW.dtype != torch.float32
    view = {"OH": H, "OW": W, "ROUND": options.rounding, "HSV": options.hsv_saturation, "SHIFT": shift}
    # float16 keeps what half outputs keep, at the tensor cores' full rate.
    dot = {"DOT": tl.float16 if half else tl.float32, "PRECISION": "ieee" if half else shapes.float32_products}
    color = {"CHANNELS": C, "RADIUS": radius, **color_constants(options), **dot}
    ptx = {"PTX": shapes.ptx and isinstance(resize_kernel, triton.JITFunction)}
    gather = {"ANTIALIAS": options.antialias, **ptx}
    source = (pixels, offsets_B, strides_B, params_VBP)

    for longest, warps in shapes.small if half else shapes.small_float32:
        if max(H, W) <= longest:
            block = {"RB": _block(H), "CB": _block(W), **gather}
            arguments = (*source, shift_VB3, views_VBCHW, *norm, B)
            return [Launch(small_kernel, (VB,), arguments, {**view, **color, **block}, {"num_warps": warps})]

    resize, finish = shapes.resize, shapes.finish if half else shapes.finish_float32
    columns = _columns(W, resize.columns, resize.warps)
    tiles = _parts(H, resize.rows) * _parts(W, columns)
    strips = _parts(H, finish.rows - 2 * radius)
    device = pixels.device
    scratch = torch.empty(VB, 3, H, W, dtype=torch.uint8 if options.rounding else torch.float32, device=device)
    sums = torch.empty(4 if shift else 1, VB, tiles, device=device)
    after = torch.empty(3, VB, strips, device=device) if shift else None
    parts = {"TILES": tiles, "TILES2": _power_of_two(tiles), "STRIPS": strips}
    launches = [
        Launch(
            resize_kernel,
            (VB * tiles,),
            (*source, scratch, sums, B, VB),
            {**view, **gather, "TILES": tiles, "RB": resize.rows, "CB": columns},
            resize.options(),
        ),
        Launch(
            finish_kernel,
            (VB * strips,),
            (scratch, params_VBP, sums, after, views_VBCHW, *norm, VB),
            {**view, **color, **ptx, **parts, **finish.constants()},
            finish.options(),
        ),
    ]
    if shift:
        strips2 = _power_of_two(strips)
        launches.append(
            Launch(
                shift_kernel,
                (VB,),
                (params_VBP, sums[1:], after, shift_VB3, VB),
                {**parts, "STRIPS2": strips2, "COUNT": H * W},
                {"num_warps": 1},
            )
        )
    return launches


@lru_cache(maxsize=32)
def _columns(width: int, most: int, warps: int) -> int:
    """Columns of a tile for outputs of `width`: `most`, or a half, a quarter, ... of it, at least one for each lane.

    What belongs to a row costs a thread as much as one or two columns do; columns past the width cost what others do.
    """
    lanes = 32 * warps
    choices = [most, *(most >> i for i in range(1, most.bit_length()) if most >> i >= lanes)]
    return min(choices, key=lambda columns: _parts(width, columns) * (columns + 2 * lanes))


def _block(n: int) -> int:
    return max(16, _power_of_two(n))


def _parts(whole: int, part: int) -> int:
    """Parts that cover the whole: `triton.cdiv` without the microsecond that being callable from kernels costs it."""
    return -(-whole // part)


def _power_of_two(n: int) -> int:
    """The smallest one that is not below n."""
    return 1 << (n - 1).bit_length()
