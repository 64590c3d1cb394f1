"""Gaussian weights as banded matrices, so that a separable blur is two products on the tensor cores."""

import triton
import triton.language as tl


@triton.jit
def blur_radius(sigma, RADIUS: tl.constexpr):
    """RADIUS, or less if the taps beyond weigh less than 1e-6 together: erfc(4.9 / sqrt 2)."""
    return tl.minimum(tl.ceil(4.9 * sigma - 0.5).to(tl.int32), RADIUS)


@triton.jit
def gaussian(sigma, radius):
    """(rate, offset, radius): the weight at distance d is 2 ** (rate * d * d + offset) up to the radius, 0 beyond."""
    rate = -0.7213475204444817 / (sigma * sigma)  # -1 / (2 ln 2)
    reach = radius.to(tl.float32)
    taps = tl.arange(0, 64).to(tl.float32) - 31.0
    total = tl.sum(tl.where(tl.abs(taps) <= reach, tl.exp2(rate * taps * taps), 0.0))
    return rate, -tl.log2(total), reach


@triton.jit
def weights(distance, kernel):
    """Weights at float32 distances."""
    rate, offset, reach = kernel
    return tl.where(tl.abs(distance) <= reach, tl.exp2(rate * distance * distance + offset), 0.0)


@triton.jit
def band(source, output, kernel):
    """Weight of each source position [K] in each output position [N], both float32: [K, N]."""
    return weights(source[:, None] - output[None, :], kernel)


@triton.jit
def reflected_band(source, output, kernel, SIZE: tl.constexpr):
    """`band` near the borders of 0..SIZE-1: the weight of a reflected position is added to the position it mirrors."""
    k = source[:, None]
    o = output[None, :]
    w = weights(k - o, kernel)
    w += tl.where(k > 0, weights(k + o, kernel), 0.0)
    w += tl.where(k < SIZE - 1, weights(2 * (SIZE - 1) - k - o, kernel), 0.0)
    return tl.where((k >= 0) & (k < SIZE), w, 0.0)


@triton.jit
def reflect(i, SIZE: tl.constexpr):
    """Positions outside 0..SIZE-1 mirrored into it, without repeating the border."""
    i = tl.abs(i)
    i = tl.where(i >= SIZE, 2 * (SIZE - 1) - i, i)
    return tl.minimum(tl.maximum(i, 0), SIZE - 1)
