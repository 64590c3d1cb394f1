"""Whether parameter rows can be applied to their images, on the CPU in one pass."""

import math
from typing import Any

import torch
from numba import njit
from torch import Tensor

from ..params import HEIGHT, LEFT, ROTATION, TOP, WIDTH, P
from .compiled import Compiled


def rows_fit(
    pixels: Tensor,
    offsets_B: Tensor,
    strides_B: Tensor,
    sizes_B2: Tensor,
    params_VBP: Tensor,
    height: int,
    width: int,
) -> bool:
    """Whether `check_rows` would accept these arguments; it is slower and names what is wrong."""
    return _fits()(
        pixels.numel(),
        offsets_B.contiguous().numpy(),
        strides_B.to(torch.int64).contiguous().numpy(),
        sizes_B2.to(torch.int64).contiguous().numpy(),
        params_VBP.contiguous().numpy(),
        height == width,
    )


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


_fits = Compiled(_make_fits, "boolean(int64, int64[::1], int64[::1], int64[:, ::1], float32[:, :, ::1], boolean)")
