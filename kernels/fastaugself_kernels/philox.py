"""Philox4x32-10 on int64 tensors: the same bits as Triton's `tl.philox` (Salmon 2011, "Parallel random numbers: as
easy as 1, 2, 3", SC'11)."""

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIER_A, MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
WEYL_A, WEYL_B = 0x9E3779B9, 0xBB67AE85


def philox4x32(seed: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit words per counter, as int64 tensors in [0, 2**32).

    seed: 64-bit key. c0..c3: int64 counters of broadcastable shapes; their low 32 bits count.
    """
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    c0, c1, c2, c3 = torch.broadcast_tensors(c0 & MASK, c1 & MASK, c2 & MASK, c3 & MASK)
    for _ in range(10):
        # The int64 product wraps modulo 2**64, which keeps both 32-bit halves exact.
        b, a = c2 * MULTIPLIER_B, c0 * MULTIPLIER_A
        c0, c1 = ((b >> 32) & MASK) ^ c1 ^ k0, b & MASK
        c2, c3 = ((a >> 32) & MASK) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + WEYL_A) & MASK, (k1 + WEYL_B) & MASK
    return c0, c1, c2, c3


def uniform(word: Tensor) -> Tensor:
    """Float64 in [0, 1) with 24 random bits: exact in float32 too, so equal on every device."""
    return (word >> 8).to(torch.float64) * (1.0 / (1 << 24))
