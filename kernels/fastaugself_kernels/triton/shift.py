"""Colour shift of large outputs, from the sums that the other two launches wrote."""

import triton
import triton.language as tl

from .columns import JITTER, P


@triton.jit(do_not_specialize=["VB"])
def shift_kernel(
    p_params,  # float32 [V * B, P]
    p_before,  # float32 [3, V * B, TILES]: red, green, blue before jitter
    p_after,  # float32 [3, V * B, STRIPS]: after it
    p_shift,  # float32 [V * B, 3]
    VB,
    TILES: tl.constexpr,
    TILES2: tl.constexpr,  # rounded up to a power of 2
    STRIPS: tl.constexpr,
    STRIPS2: tl.constexpr,
    COUNT: tl.constexpr,  # pixels of a view
):
    """Mean colour before jitter minus after, 0 where the jitter is off and nothing was summed."""
    vb = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, TILES2)
    strip = tl.arange(0, STRIPS2)
    jittered = tl.load(p_params + vb * P + JITTER) > 0.5
    for channel in tl.static_range(3):
        line = channel * VB.to(tl.int64) + vb
        before = tl.sum(tl.load(p_before + line * TILES + tile, mask=tile < TILES, other=0.0))
        after = tl.sum(tl.load(p_after + line * STRIPS + strip, mask=strip < STRIPS, other=0.0))
        tl.store(p_shift + vb * 3 + channel, tl.where(jittered, (before - after) * (1.0 / COUNT), 0.0))
