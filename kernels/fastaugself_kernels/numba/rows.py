"""Parameter rows on the CPU: drawn, and held against the images they are for, in one pass each.

PyTorch takes some hundred small operations for the same, which cost more between two batches than they should, and wake
all its threads.

Shape suffixes: V views, B batch, P parameter columns.
"""

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .. import philox
from ..params import (
    BRIGHTNESS,
    CONTRAST,
    CROP_ATTEMPTS,
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
    SLOTS_PER_VIEW,
    SOLARIZE,
    SOLARIZE_OFF,
    TOP,
    WIDTH,
    P,
)
from .compiled import Compiled
from .resize import EXACT

# Numba computes in float64 where an unsigned number meets a signed one.
_MASK, _HALF, _EIGHT = np.uint64(philox.MASK), np.uint64(32), np.uint64(8)
_MULTIPLIER_A, _MULTIPLIER_B = np.uint64(philox.MULTIPLIER_A), np.uint64(philox.MULTIPLIER_B)
_WEYL_A, _WEYL_B = np.uint64(philox.WEYL_A), np.uint64(philox.WEYL_B)


def sample_params_numba(sample_ids_B: Tensor, sizes_B2: Tensor, packed_V32: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Draws params_VBP, float32 [V, B, 16]: what `sample_params_torch` draws, bit for bit. Arguments as there."""
    params_VBP = torch.empty(packed_V32.shape[0], sample_ids_B.shape[0], P)
    _draw()(
        sample_ids_B.contiguous().numpy(),
        sizes_B2.to(torch.int64).contiguous().numpy(),
        packed_V32.numpy(),
        params_VBP.numpy(),
        np.uint64(seed & philox.MASK),
        np.uint64(seed >> 32 & philox.MASK),
        np.uint64(epoch),
    )
    return params_VBP


def rows_fit(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
) -> bool:
    """Whether every row can be applied, as `check_rows` sees it, which says what is wrong where one cannot."""
    return _fits()(
        pixels.numel(),
        offsets_B.contiguous().numpy(),
        strides_B.to(torch.int64).contiguous().numpy(),
        sizes_B2.to(torch.int64).contiguous().numpy(),
        params_VBP.contiguous().numpy(),
        height == width,
    )


@njit(**EXACT)
def _philox(k0, k1, c0, c1, c2, c3):
    """See philox.philox4x32; all are uint64 below 2**32."""
    for _ in range(10):
        b, a = c2 * _MULTIPLIER_B, c0 * _MULTIPLIER_A
        c0, c1 = (b >> _HALF) ^ c1 ^ k0, b & _MASK
        c2, c3 = (a >> _HALF) ^ c3 ^ k1, a & _MASK
        k0, k1 = (k0 + _WEYL_A) & _MASK, (k1 + _WEYL_B) & _MASK
    return c0, c1, c2, c3


@njit(**EXACT)
def _uniform(word):
    return np.float64(word >> _EIGHT) * (1.0 / 16777216)


@njit(**EXACT)
def _between(word, policy, column):
    low = policy[column]
    return _uniform(word) * (policy[column + 1] - low) + low


@njit(**EXACT)
def _order(index):
    """Permutation number 0..23 (Lehmer code) to four packed 2-bit op ids."""
    remaining, packed, radix = 0b11_10_01_00, 0, 6
    for position in range(3):
        shift = 2 * (index // radix)
        index %= radix
        packed |= ((remaining >> shift) & 3) << (2 * position)
        remaining = ((remaining >> (shift + 2)) << shift) | (remaining & ((1 << shift) - 1))
        radix = 2 - position
    return packed | (remaining & 3) << 6


@njit(**EXACT)
def _crop(row, policy, H, W, k0, k1, c0, c1, c2, slots):
    """torchvision's RandomResizedCrop.get_params: the first of ten attempts that fits, else a central box."""
    for attempt in range(CROP_ATTEMPTS):
        u0, u1, u2, u3 = _philox(k0, k1, c0, c1, c2, slots + np.uint64(attempt))
        area = H * W * _between(u0, policy, 0)
        ratio = math.exp(_between(u1, policy, 2))
        w = math.floor(math.sqrt(area * ratio) + 0.5)
        h = math.floor(math.sqrt(area / ratio) + 0.5)
        if 0 < w <= W and 0 < h <= H:
            row[TOP], row[LEFT] = math.floor(_uniform(u2) * (H - h + 1)), math.floor(_uniform(u3) * (W - w + 1))
            row[HEIGHT], row[WIDTH] = h, w
            return
    ratio_low, ratio_high = policy[4], policy[5]
    w = math.floor(H * ratio_high + 0.5) if ratio_high < W / H else W
    h = math.floor(W / ratio_low + 0.5) if ratio_low > W / H else H
    row[TOP], row[LEFT] = math.floor((H - h) / 2), math.floor((W - w) / 2)
    row[HEIGHT], row[WIDTH] = h, w


def _make_draw(sources: int, *, keep: bool) -> Any:
    @njit(cache=keep, nogil=True, error_model="numpy")
    def draw(ids, sizes, policies, params, k0, k1, epoch):
        for v in range(policies.shape[0] if sources >= 0 else 0):
            policy = policies[v]
            slots = np.uint64(v * SLOTS_PER_VIEW)
            for i in range(ids.size):
                row = params[v, i]
                row[:] = 0
                c0, c1 = np.uint64(ids[i]) & _MASK, np.uint64(ids[i]) >> _HALF
                H, W = np.float64(sizes[i, 0]), np.float64(sizes[i, 1])
                _crop(row, policy, H, W, k0, k1, c0, c1, epoch, slots)
                a0, a1, a2, a3 = _philox(k0, k1, c0, c1, epoch, slots + np.uint64(10))
                b0, b1, b2, b3 = _philox(k0, k1, c0, c1, epoch, slots + np.uint64(11))
                d0, d1, d2, d3 = _philox(k0, k1, c0, c1, epoch, slots + np.uint64(12))
                e0, e1, _e2, _e3 = _philox(k0, k1, c0, c1, epoch, slots + np.uint64(13))
                jitter = _uniform(a0) < policy[6]
                row[FLIP] = _uniform(d2) < policy[22]
                row[ROTATION] = math.floor(_uniform(e1) * 4) if _uniform(e0) < policy[23] else 0
                row[JITTER] = jitter
                row[ORDER] = _order(int(_uniform(a1) * 24))
                row[BRIGHTNESS] = _between(a2, policy, 7) if jitter else 1
                row[CONTRAST] = _between(a3, policy, 9) if jitter else 1
                row[SATURATION] = _between(b0, policy, 11) if jitter else 1
                row[HUE] = _between(b1, policy, 13) if jitter else 0
                row[GRAY] = _uniform(b2) < policy[15]
                row[SIGMA] = _between(d0, policy, 17) if _uniform(b3) < policy[16] else 0
                row[SOLARIZE] = _between(d3, policy, 20) if _uniform(d1) < policy[19] else SOLARIZE_OFF

    return draw


def _make_fits(sources: int, *, keep: bool) -> Any:
    @njit(cache=keep, nogil=True)
    def fits(size, offsets, strides, sizes, params, square):
        if sources < 0:
            return False
        for b in range(offsets.size):
            H, W = sizes[b, 0], sizes[b, 1]
            if offsets[b] < 0 or min(H, W) < 1 or offsets[b] + strides[b] * (H - 1) + W * 3 > size:
                return False
            for v in range(params.shape[0]):
                row = params[v, b]
                for p in range(P):
                    if not math.isfinite(row[p]):
                        return False
                y, x, h, w = row[TOP], row[LEFT], row[HEIGHT], row[WIDTH]
                if y < 0 or x < 0 or h < 1 or w < 1 or y + h > H or x + w > W:
                    return False
                if not square and int(row[ROTATION]) % 2 != 0:
                    return False
        return True

    return fits


_draw = Compiled(
    _make_draw, "void(int64[::1], int64[:, ::1], float64[:, ::1], float32[:, :, ::1], uint64, uint64, uint64)"
)
_fits = Compiled(_make_fits, "boolean(int64, int64[::1], int64[::1], int64[:, ::1], float32[:, :, ::1], boolean)")
