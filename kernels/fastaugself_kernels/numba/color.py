"""Colour operations in place on three float planes r, g, b of equal length, values in [0, 1].

The first part is one plain loop per operation, which LLVM vectorises: no branch on the value of a pixel, one pass over
a strip that stays in the first-level cache. The second part applies them as a parameter row says.
"""

import numpy as np
from numba import njit

from ..backends import Options
from ..params import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    OP_BRIGHTNESS,
    OP_CONTRAST,
    OP_SATURATION,
    SATURATION,
    SOLARIZE,
)
from .flags import EXACT, FAST
from .simd import keep_apart, widest_vectors

SOLARIZE_BEFORE_GRAY = Options._fields.index("solarize_before_gray")
HSV_SATURATION = Options._fields.index("hsv_saturation")
# Where the float64 scratch holds the sums of the three channels.
BEFORE_JITTER, BEFORE_CONTRAST, AFTER_JITTER, NOWHERE = 0, 3, 6, -1

_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.float32(1e-30)
_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
SUMMED = 2048  # values whose float32 sum goes to a float64 one


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
def saturation_hsv(r, g, b, factor):
    """The oracle's closed form: each channel's distance from the highest, times the factor or 1 / S."""
    widest_vectors()
    factor = max(factor, _ZERO)
    for i in range(r.size):
        red, green, blue = r[i], g[i], b[i]
        high, low = max(red, max(green, blue)), min(red, min(green, blue))
        rest = _ONE - min(high / max(high - low, _TINY), factor)
        r[i] = min(max(red + (high - red) * rest, _ZERO), _ONE)
        g[i] = min(max(green + (high - green) * rest, _ZERO), _ONE)
        b[i] = min(max(blue + (high - blue) * rest, _ZERO), _ONE)


@njit(**FAST)
def hue(r, g, b, turns):
    """The oracle's hexcone without a division and with one conditional subtraction for the modulo.

    In units of the chroma, j is the hue in sixths of a turn, rotated, minus 3: red is |j| - 1, green 2 - |j + 1| and
    blue 2 - |j - 1| above the lowest channel, each clamped to [0, 1]. To rotate backwards is to rotate forwards with
    green and blue exchanged.
    """
    turns -= np.float32(np.floor(turns + np.float32(0.5)))
    if turns < 0:
        _rotate_hue(r, b, g, -turns)
    else:
        _rotate_hue(r, g, b, turns)


@njit(**FAST)
def _rotate_hue(r, g, b, turns):
    """Forwards, by at most half a turn: j is in [-2, 7) before the subtraction."""
    widest_vectors()
    shift = turns * np.float32(6)
    from_red, from_green, from_blue = shift + np.float32(3), shift - np.float32(1), shift + np.float32(1)
    for i in range(r.size):
        red, green, blue = r[i], g[i], b[i]
        high, low = max(red, max(green, blue)), min(red, min(green, blue))
        chroma = high - low
        j = red - green + chroma * from_blue
        j = blue - red + chroma * from_green if high == green else j
        j = green - blue + chroma * from_red if high == red else j
        j = j - np.float32(6) * chroma if j >= np.float32(3) * chroma else j
        below, above = low - chroma, high + chroma
        r[i] = min(max(below + abs(j), low), high)
        g[i] = min(max(above - abs(j + chroma), low), high)
        b[i] = min(max(above - abs(j - chroma), low), high)


@njit(**FAST)
def gray(r, g, b):
    """The luma, into r."""
    widest_vectors()
    for i in range(r.size):
        r[i] = _RED * r[i] + _GREEN * g[i] + _BLUE * b[i]


@njit(**FAST)
def solarize(x, threshold):
    widest_vectors()
    for i in range(x.size):
        x[i] = _ONE - x[i] if x[i] >= threshold else x[i]


@njit(**FAST)
def add_sums(r, g, b, sums, at):
    """Adds the sums of the planes to sums[at : at + 3], float64, so that the error does not grow with the view."""
    widest_vectors()
    for start in range(0, r.size, SUMMED):
        red, green, blue = _ZERO, _ZERO, _ZERO
        for i in range(start, min(start + SUMMED, r.size)):
            red += r[i]
            green += g[i]
            blue += b[i]
        sums[at] += red
        sums[at + 1] += green
        sums[at + 2] += blue


@njit(**FAST)
def luma(sums, at, size):
    """The mean luma of `size` pixels whose channels' sums are sums[at : at + 3]."""
    return np.float32((_RED * sums[at] + _GREEN * sums[at + 1] + _BLUE * sums[at + 2]) / size)


@njit(**EXACT)
def next_contrast(order, position):
    """The first position of the contrast in the order, from `position` on; 4 if there is none."""
    while position < 4 and (order >> (2 * position)) & 3 != OP_CONTRAST:
        position += 1
    return position


@njit(**EXACT)
def jitter(planes, start, plane, n, row, order, first, last, mean, sums, before, after, options):
    """The jitter operations at positions first..last of the order, on n pixels of the three planes, in place.

    mean: the mean luma of the view that the contrast blends with.
    The sums of the channels before and after are added to sums[before : before + 3] and sums[after : after + 3].
    """
    keep_apart()
    r = planes[start : start + n]
    g = planes[start + plane : start + plane + n]
    b = planes[start + 2 * plane : start + 2 * plane + n]
    if before != NOWHERE:
        add_sums(r, g, b, sums, before)
    for position in range(first, last):
        op = (order >> (2 * position)) & 3
        if op == OP_BRIGHTNESS:
            brightness(r, g, b, row[BRIGHTNESS])
        elif op == OP_CONTRAST:
            contrast(r, g, b, row[CONTRAST], mean)
        elif op == OP_SATURATION and options[HSV_SATURATION]:
            saturation_hsv(r, g, b, row[SATURATION])
        elif op == OP_SATURATION:
            saturation(r, g, b, row[SATURATION])
        else:
            hue(r, g, b, row[HUE])
    if after != NOWHERE:
        add_sums(r, g, b, sums, after)


@njit(**EXACT)
def before_gray(planes, start, plane, n, row, options):
    """The point operations between jitter and gray, on n pixels of the three planes, in place."""
    if options[SOLARIZE_BEFORE_GRAY] and row[SOLARIZE] <= 1:
        _solarize_planes(planes, start, plane, 3, n, row[SOLARIZE])


@njit(**EXACT)
def to_gray(planes, start, plane, n):
    """The luma of n pixels, into the first plane."""
    keep_apart()
    gray(
        planes[start : start + n],
        planes[start + plane : start + plane + n],
        planes[start + 2 * plane : start + 2 * plane + n],
    )


@njit(**EXACT)
def after_blur(planes, start, plane, channels, n, row, options):
    """The point operations between blur and normalisation, on n pixels of `channels` planes (1 if gray), in place."""
    if not options[SOLARIZE_BEFORE_GRAY] and row[SOLARIZE] <= 1:
        _solarize_planes(planes, start, plane, channels, n, row[SOLARIZE])


@njit(**EXACT)
def _solarize_planes(planes, start, plane, channels, n, threshold):
    keep_apart()
    for c in range(channels):
        solarize(planes[start + c * plane : start + c * plane + n], threshold)
