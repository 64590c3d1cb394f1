"""Colour operations in place on three float planes r, g, b of equal length, values in [0, 1].

Plain loops that LLVM vectorises: no branch on a pixel's value, one pass per operation over a strip that stays in the
first-level cache.
"""

import numpy as np
from numba import njit

from .resize import FAST
from .simd import widest_vectors

_ZERO, _ONE, _SIX = np.float32(0), np.float32(1), np.float32(6)
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
_SIXTH = np.float32(1 / 6)
_TINY = np.float32(1e-12)


@njit(**FAST)
def brightness(r, g, b, factor):
    widest_vectors()
    for i in range(r.size):
        r[i] = min(max(r[i] * factor, _ZERO), _ONE)
        g[i] = min(max(g[i] * factor, _ZERO), _ONE)
        b[i] = min(max(b[i] * factor, _ZERO), _ONE)


@njit(**FAST)
def contrast(r, g, b, factor, mean):
    widest_vectors()
    offset = (_ONE - factor) * mean
    for i in range(r.size):
        r[i] = min(max(r[i] * factor + offset, _ZERO), _ONE)
        g[i] = min(max(g[i] * factor + offset, _ZERO), _ONE)
        b[i] = min(max(b[i] * factor + offset, _ZERO), _ONE)


@njit(**FAST)
def saturation(r, g, b, factor):
    widest_vectors()
    rest = _ONE - factor
    red, green, blue = rest * _RED, rest * _GREEN, rest * _BLUE
    for i in range(r.size):
        offset = red * r[i] + green * g[i] + blue * b[i]
        r[i] = min(max(r[i] * factor + offset, _ZERO), _ONE)
        g[i] = min(max(g[i] * factor + offset, _ZERO), _ONE)
        b[i] = min(max(b[i] * factor + offset, _ZERO), _ONE)


@njit(**FAST)
def hue(r, g, b, turns):
    """The oracle's closed form, with each channel a clamped distance from its place on the circle of six."""
    widest_vectors()
    shift = turns * _SIX
    for i in range(r.size):
        red, green, blue = r[i], g[i], b[i]
        high, low = max(red, max(green, blue)), min(red, min(green, blue))
        chroma = high - low
        is_red, is_green = high == red, high == green
        difference = green - blue if is_red else (blue - red if is_green else red - green)
        start = shift if is_red else (shift + np.float32(2) if is_green else shift + np.float32(4))
        h = difference / max(chroma, _TINY) + start
        h -= np.floor(h * _SIXTH) * _SIX
        r[i] = low + chroma * min(max(abs(h - np.float32(3)) - _ONE, _ZERO), _ONE)
        g[i] = low + chroma * min(max(np.float32(2) - abs(h - np.float32(2)), _ZERO), _ONE)
        b[i] = low + chroma * min(max(np.float32(2) - abs(h - np.float32(4)), _ZERO), _ONE)


@njit(**FAST)
def gray(r, g, b):
    """Luma into r alone."""
    widest_vectors()
    for i in range(r.size):
        r[i] = _RED * r[i] + _GREEN * g[i] + _BLUE * b[i]


@njit(**FAST)
def solarize(x, threshold):
    widest_vectors()
    for i in range(x.size):
        x[i] = _ONE - x[i] if x[i] >= threshold else x[i]


@njit(**FAST)
def add_sums(r, g, b, sums):
    """Adds the sums of the planes to float64 sums[0..2]."""
    widest_vectors()
    red, green, blue = _ZERO, _ZERO, _ZERO
    for i in range(r.size):
        red += r[i]
        green += g[i]
        blue += b[i]
    sums[0] += red
    sums[1] += green
    sums[2] += blue


@njit(**FAST)
def luma(sums, size):
    """The mean luma of `size` pixels from the sums of their channels."""
    return np.float32((_RED * sums[0] + _GREEN * sums[1] + _BLUE * sums[2]) / size)
