"""Parameters drawn on the CPU in one pass.

In PyTorch the same takes about a hundred small operations, which cost more time between two batches than they should
and wake all of its threads.

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
    CONSTANT,
    CROP_ATTEMPTS,
    DRAW_NUMBERS,
    HEIGHT,
    LEFT,
    ONE,
    POLICY,
    SLOTS,
    SLOTS_PER_VIEW,
    TOP,
    UNIFORM,
    WHOLE,
    WIDTH,
    P,
)
from .compiled import compiled
from .flags import EXACT
from .simd import inline_always

SCALE, LOG_RATIO, RATIO = POLICY["scale"], POLICY["log_ratio"], POLICY["ratio"]

# Numba computes in float64 where an unsigned number meets a signed one.
_MASK, _HALF, _EIGHT = np.uint64(philox.MASK), np.uint64(32), np.uint64(8)
_MULTIPLIER_A, _MULTIPLIER_B = np.uint64(philox.MULTIPLIER_A), np.uint64(philox.MULTIPLIER_B)
_WEYL_A, _WEYL_B = np.uint64(philox.WEYL_A), np.uint64(philox.WEYL_B)


def sample_params_numba(sample_ids_B: Tensor, sizes_B2: Tensor, packed_V32: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Draws params_VBP, float32 [V, B, 16], with the bits and arguments of `sample_params_torch`."""
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


@njit(**EXACT)
def _philox(k0, k1, c0, c1, c2, c3):
    """`philox.philox4x32` of scalars, all uint64 below 2**32."""
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
    """Unpacks permutation number 0..23 (Lehmer code) into four packed 2-bit operation ids."""
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
        area = H * W * _between(u0, policy, SCALE)
        ratio = math.exp(_between(u1, policy, LOG_RATIO))
        w = math.floor(math.sqrt(area * ratio) + 0.5)
        h = math.floor(math.sqrt(area / ratio) + 0.5)
        if 0 < w <= W and 0 < h <= H:
            row[TOP], row[LEFT] = math.floor(_uniform(u2) * (H - h + 1)), math.floor(_uniform(u3) * (W - w + 1))
            row[HEIGHT], row[WIDTH] = h, w
            return
    ratio_low, ratio_high = policy[RATIO], policy[RATIO + 1]
    w = math.floor(H * ratio_high + 0.5) if ratio_high < W / H else W
    h = math.floor(W / ratio_low + 0.5) if ratio_low > W / H else H
    row[TOP], row[LEFT] = math.floor((H - h) / 2), math.floor((W - w) / 2)
    row[HEIGHT], row[WIDTH] = h, w


# The table of draws becomes code with its numbers as constants: one function per slot and per draw, chained by
# functions that call one and then the rest, all inlined. A loop over the table would take 1.5 times as long.


def _make_words(slot: int) -> Any:
    """A function that returns the words of the slots from `slot` on, four per slot, as one tuple."""
    number = np.uint64(slot)

    @njit(**EXACT)
    def words_of_slot(k0, k1, c0, c1, c2, slots):
        inline_always()
        return _philox(k0, k1, c0, c1, c2, slots + number)

    if slot + 1 == SLOTS:
        return words_of_slot
    words_of_rest = _make_words(slot + 1)

    @njit(**EXACT)
    def words(k0, k1, c0, c1, c2, slots):
        inline_always()
        return words_of_slot(k0, k1, c0, c1, c2, slots) + words_of_rest(k0, k1, c0, c1, c2, slots)

    return words


def _make_fill(n: int) -> Any:
    """A function that fills the columns of the draws from number n of `DRAWS` on."""
    column, kind, word, argument, gate, probability, identity = (numbers[n] for numbers in DRAW_NUMBERS)

    @njit(**EXACT)
    def fill_one(row, words, policy):
        inline_always()
        if kind == CONSTANT:
            value = identity
        elif kind == ONE:
            value = 1.0
        elif kind == UNIFORM:
            value = _between(words[word], policy, argument)
        elif kind == WHOLE:
            value = np.float64(math.floor(_uniform(words[word]) * argument))
        else:
            value = np.float64(_order(int(_uniform(words[word]) * argument)))
        # The value is computed in either case: a branch on a random number would be mispredicted half of the time.
        applied = gate < 0 or _uniform(words[gate]) < policy[probability]
        row[column] = value if applied else identity

    if n + 1 == len(DRAW_NUMBERS.column):
        return fill_one
    fill_rest = _make_fill(n + 1)

    @njit(**EXACT)
    def fill(row, words, policy):
        inline_always()
        fill_one(row, words, policy)
        fill_rest(row, words, policy)

    return fill


_words, _fill = _make_words(CROP_ATTEMPTS), _make_fill(0)


def _make_draw(sources: int, *, keep: bool) -> Any:
    @njit(cache=keep, nogil=True, error_model="numpy")
    def draw(ids, sizes, policies, params, k0, k1, epoch):
        for v in range(policies.shape[0] if sources >= 0 else 0):
            policy = policies[v]
            slots = np.uint64(v * SLOTS_PER_VIEW)
            for i in range(ids.size):
                row = params[v, i]
                c0, c1 = np.uint64(ids[i]) & _MASK, np.uint64(ids[i]) >> _HALF
                H, W = np.float64(sizes[i, 0]), np.float64(sizes[i, 1])
                _crop(row, policy, H, W, k0, k1, c0, c1, epoch, slots)
                words = _words(k0, k1, c0, c1, epoch, slots)
                _fill(row, words, policy)

    return draw


_draw = compiled(
    _make_draw, "void(int64[::1], int64[:, ::1], float64[:, ::1], float32[:, :, ::1], uint64, uint64, uint64)"
)
