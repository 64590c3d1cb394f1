"""Targets and descriptors on the GPU in one launch each, with the bits of `..targets`.

In plain PyTorch they take about a hundred launches on a few kilobytes, more time than the views. To round once per
operation as PyTorch does, the launches forbid fused multiply-adds and divide with correct rounding.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import params
from .columns import (
    BRIGHTNESS,
    FLIP,
    GRAY,
    HEIGHT,
    JITTER,
    LEFT,
    POLICY_COLUMNS,
    ROTATION,
    SIGMA,
    TOP,
    WIDTH,
    P,
)
from .launch import Launch, require_device, run

BLOCK, WARPS = 128, 4
SOLARIZE = tl.constexpr(params.SOLARIZE)
FACTORS = tl.constexpr(params.POLICY["brightness"])  # bounds of the four factors, two columns each, begin here
LARGEST_SIGMA = tl.constexpr(params.POLICY["sigma"] + 1)
PARTS = {"BLUR": "blur", "COLOR": "color", "COLOR_DIFF": "color_diff", "CROP": "crop", "FLIPPED": "flip",
         "GRAYSCALE": "grayscale"}  # fmt: skip


def targets_triton(params_VBP: Tensor, sizes_B2: Tensor, packed_V32: Tensor, *, fixed: bool) -> tuple[Tensor, ...]:
    """The six fields of `Targets`, each with both orders of the views in its first dimension: (1, 2), then (2, 1)."""
    require_device(params_VBP, targets_kernel)
    B = params_VBP.shape[1]
    fields = empty_targets(B, params_VBP.device)
    if B > 0:
        source = (params_VBP.contiguous(), sizes_B2.contiguous(), packed_V32)
        run([targets_launch(*source, fields, fixed=fixed)], params_VBP.device)
    return fields


def empty_targets(B: int, device: torch.device) -> tuple[Tensor, ...]:
    """Memory for the six fields of `Targets`, each with both orders of the views in its first dimension."""
    widths = (4, 4, 1, 1, 0, 1)  # 0: the field of classes, one int64 per sample
    return tuple(
        torch.empty(2, B, width, device=device) if width else torch.empty(2, B, dtype=torch.int64, device=device)
        for width in widths
    )


def targets_launch(
    params_VBP: Tensor, sizes_B2: Tensor, packed_V32: Tensor, fields: Sequence[Tensor], *, fixed: bool
) -> Launch:
    B = params_VBP.shape[1]
    arguments = (params_VBP, sizes_B2, packed_V32, *fields, B)
    constants = {"FIXED": fixed, "BLOCK": BLOCK}
    return Launch(targets_kernel, (triton.cdiv(B, BLOCK), 2), arguments, constants, _options())


def descriptors_triton(
    params_VBP: Tensor, sizes_B2: Tensor, packed_V32: Tensor, shift_VB3: Tensor | None, starts: dict[str, int], n: int
) -> Tensor:
    """CASSLE's omega [V, B, n]. starts: the first column of each part of `TRITON_PARTS` that is wanted."""
    require_device(params_VBP, descriptors_kernel)
    V, B, _ = params_VBP.shape
    omega_VBn = torch.empty(V, B, n, device=params_VBP.device)
    if B > 0:
        shift_VB3 = None if shift_VB3 is None else shift_VB3.contiguous()
        source = (params_VBP.contiguous(), sizes_B2.contiguous(), packed_V32, shift_VB3)
        run([descriptors_launch(*source, omega_VBn, starts)], params_VBP.device)
    return omega_VBn


def descriptors_launch(
    params_VBP: Tensor,
    sizes_B2: Tensor,
    packed_V32: Tensor,
    shift_VB3: Tensor | None,
    omega_VBn: Tensor,
    starts: dict[str, int],
) -> Launch:
    V, B, n = omega_VBn.shape
    constants = {name: starts.get(part, -1) for name, part in PARTS.items()} | {"N": n, "BLOCK": BLOCK}
    arguments = (params_VBP, sizes_B2, packed_V32, shift_VB3, omega_VBn, B)
    return Launch(descriptors_kernel, (triton.cdiv(B, BLOCK), V), arguments, constants, _options())


def _options() -> dict[str, int | bool]:
    return {"num_warps": WARPS, "enable_fp_fusion": False}


@triton.jit
def _box(p_row, p_size, valid):
    """Centre (y, x) and size of the crop as fractions of the image."""
    H = tl.load(p_size, mask=valid, other=1).to(tl.float32)
    W = tl.load(p_size + 1, mask=valid, other=1).to(tl.float32)
    h = tl.div_rn(tl.load(p_row + HEIGHT, mask=valid, other=0.0), H)
    w = tl.div_rn(tl.load(p_row + WIDTH, mask=valid, other=0.0), W)
    y = tl.div_rn(tl.load(p_row + TOP, mask=valid, other=0.0), H) + h * 0.5
    x = tl.div_rn(tl.load(p_row + LEFT, mask=valid, other=0.0), W) + w * 0.5
    return y, x, h, w


@triton.jit
def _factor(p_row, p_policy, i: tl.constexpr, valid):
    """Jitter factor i (the fourth is the hue) as an offset from the identity in units of its range, 0 where off."""
    low = tl.load(p_policy + FACTORS + 2 * i)
    high = tl.load(p_policy + FACTORS + 2 * i + 1)
    width = (high - low).to(tl.float32)
    width = tl.where(width == 0.0, 1.0, width)
    offset = tl.load(p_row + BRIGHTNESS + i, mask=valid, other=0.0)
    if i < 3:
        offset -= 1.0
    return tl.div_rn(offset, width + offset * 0.0) * tl.load(p_row + JITTER, mask=valid, other=0.0)


@triton.jit
def _visible_rotation(p_row, flip, valid):
    """Quarter turns of the view as it is seen, up to multiples of 4: the flip comes after the rotation."""
    turns = tl.load(p_row + ROTATION, mask=valid, other=0.0).to(tl.int64)
    return tl.where(flip > 0.5, -turns, turns)


@triton.jit(do_not_specialize=["B"])
def targets_kernel(
    p_params,  # float32 [V, B, P]
    p_sizes,  # int32 or int64 [B, 2], (height, width)
    p_policies,  # float64 [V, POLICY_COLUMNS]
    p_crop,  # float32 [2, B, 4]
    p_color,  # float32 [2, B, 4]
    p_flip,  # float32 [2, B, 1]
    p_blur,  # float32 [2, B, 1]
    p_rotation,  # int64 [2, B]
    p_solarize,  # float32 [2, B, 1]
    B,
    FIXED: tl.constexpr,  # whether the blur is divided by the largest sigma
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = tl.program_id(1)  # the view whose frame it is
    second = 1 - first
    valid = i < B
    p_a = p_params + (first.to(tl.int64) * B + i) * P
    p_b = p_params + (second.to(tl.int64) * B + i) * P
    p_policy_a = p_policies + first * POLICY_COLUMNS
    p_policy_b = p_policies + second * POLICY_COLUMNS
    out = first.to(tl.int64) * B + i

    y_a, x_a, h_a, w_a = _box(p_a, p_sizes + 2 * i, valid)
    y_b, x_b, h_b, w_b = _box(p_b, p_sizes + 2 * i, valid)
    flip_a = tl.load(p_a + FLIP, mask=valid, other=0.0)
    flip_b = tl.load(p_b + FLIP, mask=valid, other=0.0)
    tl.store(p_crop + 4 * out, y_a - y_b, mask=valid)
    tl.store(p_crop + 4 * out + 1, (1.0 - 2.0 * flip_a) * (x_a - x_b), mask=valid)
    tl.store(p_crop + 4 * out + 2, h_a - h_b, mask=valid)
    tl.store(p_crop + 4 * out + 3, w_a - w_b, mask=valid)
    for k in tl.static_range(4):
        difference = _factor(p_a, p_policy_a, k, valid) - _factor(p_b, p_policy_b, k, valid)
        tl.store(p_color + 4 * out + k, difference, mask=valid)
    tl.store(p_flip + out, tl.where(flip_a == flip_b, 1.0, 0.0), mask=valid)
    sigma = tl.load(p_a + SIGMA, mask=valid, other=0.0) - tl.load(p_b + SIGMA, mask=valid, other=0.0)
    if FIXED:
        largest = tl.maximum(tl.load(p_policies + LARGEST_SIGMA), tl.load(p_policies + POLICY_COLUMNS + LARGEST_SIGMA))
        sigma = tl.div_rn(sigma, largest.to(tl.float32) + sigma * 0.0)
    tl.store(p_blur + out, sigma, mask=valid)
    turns = _visible_rotation(p_a, flip_a, valid) - _visible_rotation(p_b, flip_b, valid)
    tl.store(p_rotation + out, turns & 3, mask=valid)  # mod 4, of negative numbers too
    threshold_a = tl.minimum(tl.load(p_a + SOLARIZE, mask=valid, other=0.0), 1.0)
    threshold_b = tl.minimum(tl.load(p_b + SOLARIZE, mask=valid, other=0.0), 1.0)
    tl.store(p_solarize + out, threshold_a - threshold_b, mask=valid)


@triton.jit(do_not_specialize=["B"])
def descriptors_kernel(
    p_params,  # float32 [V, B, P]
    p_sizes,  # int32 or int64 [B, 2], (height, width)
    p_policies,  # float64 [V, POLICY_COLUMNS]
    p_shift,  # float32 [V, B, 3], if COLOR_DIFF >= 0
    p_omega,  # float32 [V, B, N]
    B,
    BLUR: tl.constexpr,  # first column of each part, -1 where it is left out
    COLOR: tl.constexpr,
    COLOR_DIFF: tl.constexpr,
    CROP: tl.constexpr,
    FLIPPED: tl.constexpr,
    GRAYSCALE: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    view = tl.program_id(1)
    valid = i < B
    vb = view.to(tl.int64) * B + i
    p_row = p_params + vb * P
    p = p_omega + vb * N
    flip = tl.load(p_row + FLIP, mask=valid, other=0.0)
    if BLUR >= 0:
        tl.store(p + BLUR, tl.load(p_row + SIGMA, mask=valid, other=0.0), mask=valid)
    if COLOR >= 0:
        for k in tl.static_range(4):
            tl.store(p + COLOR + k, _factor(p_row, p_policies + view * POLICY_COLUMNS, k, valid), mask=valid)
    if COLOR_DIFF >= 0:
        for k in tl.static_range(3):
            tl.store(p + COLOR_DIFF + k, tl.load(p_shift + vb * 3 + k, mask=valid, other=0.0), mask=valid)
    if CROP >= 0:
        y, x, h, w = _box(p_row, p_sizes + 2 * i, valid)
        tl.store(p + CROP, y, mask=valid)
        tl.store(p + CROP + 1, tl.where(flip > 0.5, 1.0 - x, x), mask=valid)
        tl.store(p + CROP + 2, h, mask=valid)
        tl.store(p + CROP + 3, w, mask=valid)
    if FLIPPED >= 0:
        tl.store(p + FLIPPED, flip, mask=valid)
    if GRAYSCALE >= 0:
        tl.store(p + GRAYSCALE, tl.load(p_row + GRAY, mask=valid, other=0.0), mask=valid)
