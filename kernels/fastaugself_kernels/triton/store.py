"""Normalise, cast and store planar tiles as interleaved RGB in whole 16-byte words."""

import triton
import triton.language as tl


@triton.jit
def _halves(x, R: tl.constexpr, C: tl.constexpr, N: tl.constexpr):
    """The first and the second N of 2 N neighbours."""
    return tl.split(tl.permute(tl.reshape(x, (R, C, 2, N)), (0, 1, 3, 2)))


@triton.jit
def _split8(x, R: tl.constexpr, C: tl.constexpr):
    low, high = _halves(x, R, C, 4)
    low0, low2 = _halves(low, R, C, 2)
    high4, high6 = _halves(high, R, C, 2)
    x0, x1 = tl.split(low0)
    x2, x3 = tl.split(low2)
    x4, x5 = tl.split(high4)
    x6, x7 = tl.split(high6)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def _join8(x0, x1, x2, x3, x4, x5, x6, x7, R: tl.constexpr, C: tl.constexpr):
    even = tl.join(tl.join(x0, x4), tl.join(x2, x6))
    odd = tl.join(tl.join(x1, x5), tl.join(x3, x7))
    return tl.reshape(tl.join(even, odd), (R, C, 8))


@triton.jit
def store_rgb(
    p_out,  # float16, bfloat16 or float32: the image, [pixels, CHANNELS]
    first,  # int32 [RB]: pixel index of each row's first column
    count,  # int32 [RB]: how many of the row's columns to store
    r,
    g,
    b,  # float32 [RB, CB] in [0, 1]
    scale_r,
    scale_g,
    scale_b,
    bias_r,
    bias_g,
    bias_b,
    RB: tl.constexpr,
    CB: tl.constexpr,
    CHANNELS: tl.constexpr,  # channels of the output: 3, or 4 with a last one of zeros
    WIDE: tl.constexpr,  # whether every `first` and `count` is a multiple of 8
):
    """Stores scale * x + bias.

    Eight pixels are 24 values, three words of eight, or four with the zeros. Splitting and joining moves them there
    inside a thread's registers; storing a channel at a time would write two bytes per instruction.
    """
    dtype = p_out.dtype.element_ty
    r = (r * scale_r + bias_r).to(dtype)
    g = (g * scale_g + bias_g).to(dtype)
    b = (b * scale_b + bias_b).to(dtype)
    if WIDE:
        C: tl.constexpr = CB // 8
        r0, r1, r2, r3, r4, r5, r6, r7 = _split8(r, RB, C)
        g0, g1, g2, g3, g4, g5, g6, g7 = _split8(g, RB, C)
        b0, b1, b2, b3, b4, b5, b6, b7 = _split8(b, RB, C)
        word = tl.arange(0, C)
        inside = (word[None, :] * 8 < count[:, None])[:, :, None]
        start = (first * CHANNELS)[:, None, None] + (word * (8 * CHANNELS))[None, :, None]
        p = p_out + start + tl.arange(0, 8)[None, None, :]
        if CHANNELS == 3:
            tl.store(p, _join8(r0, g0, b0, r1, g1, b1, r2, g2, RB, C), mask=inside)
            tl.store(p + 8, _join8(b2, r3, g3, b3, r4, g4, b4, r5, RB, C), mask=inside)
            tl.store(p + 16, _join8(g5, b5, r6, g6, b6, r7, g7, b7, RB, C), mask=inside)
        else:
            z = tl.zeros((RB, C), dtype)
            tl.store(p, _join8(r0, g0, b0, z, r1, g1, b1, z, RB, C), mask=inside)
            tl.store(p + 8, _join8(r2, g2, b2, z, r3, g3, b3, z, RB, C), mask=inside)
            tl.store(p + 16, _join8(r4, g4, b4, z, r5, g5, b5, z, RB, C), mask=inside)
            tl.store(p + 24, _join8(r6, g6, b6, z, r7, g7, b7, z, RB, C), mask=inside)
    else:
        column = tl.arange(0, CB)
        inside = column[None, :] < count[:, None]
        p = p_out + (first[:, None] + column[None, :]) * CHANNELS
        tl.store(p, r, mask=inside)
        tl.store(p + 1, g, mask=inside)
        tl.store(p + 2, b, mask=inside)
        if CHANNELS == 4:
            tl.store(p + 3, tl.zeros((RB, CB), dtype), mask=inside)
