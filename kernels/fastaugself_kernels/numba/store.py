"""Normalise, cast and store: float planes to interleaved output."""

import numpy as np
from numba import njit

from .flags import FAST
from .simd import (
    LANES,
    WIDE,
    interleave,
    interleave_padded,
    join,
    keep_apart,
    load,
    multiply_add,
    store,
    stream,
    to_bfloat,
    to_half,
)

FLOAT32, FLOAT16, BFLOAT16 = range(3)  # output kinds


@njit(**FAST)
def _normalised(planes, at, channel, scale, bias):
    """Eight pixels of each channel."""
    red = multiply_add(load(planes, at), load(scale, 0), load(bias, 0))
    green = multiply_add(load(planes, at + channel), load(scale, LANES), load(bias, LANES))
    blue = multiply_add(load(planes, at + 2 * channel), load(scale, 2 * LANES), load(bias, 2 * LANES))
    return red, green, blue


@njit(**FAST)
def _sixteen(planes, at, channel, scale, bias):
    """Sixteen pixels, normalised and interleaved: three vectors of sixteen."""
    r, g, b = _normalised(planes, at, channel, scale, bias)
    x = interleave(r, g, b)
    r, g, b = _normalised(planes, at + LANES, channel, scale, bias)
    y = interleave(r, g, b)
    return join(x[0], x[1]), join(x[2], y[0]), join(y[1], y[2])


@njit(**FAST)
def _eight_padded(planes, at, channel, scale, bias):
    """Eight pixels, normalised and interleaved with a fourth channel of zeros: two vectors of sixteen."""
    r, g, b = _normalised(planes, at, channel, scale, bias)
    x = interleave_padded(r, g, b)
    return join(x[0], x[1]), join(x[2], x[3])


@njit(**FAST, inline="always")  # as calls, stores cost ten times as much as all the rest
def _store(floats, halves, kind, p, value):
    if kind == FLOAT32:
        store(floats, p, value)
    elif kind == FLOAT16:
        store(halves, p, to_half(value))
    else:
        store(halves, p, to_bfloat(value))


@njit(**FAST, inline="always")
def _stream(floats, halves, kind, p, value):
    if kind == FLOAT32:
        stream(floats, p, value)
    elif kind == FLOAT16:
        stream(halves, p, to_half(value))
    else:
        stream(halves, p, to_bfloat(value))


@njit(**FAST)
def _store_vectors(planes, at, channel, n, scale, bias, floats, halves, kind, o):
    for j in range(0, n, WIDE):
        i = min(j, n - WIDE)
        pixels = _sixteen(planes, at + i, channel, scale, bias)
        for q in range(3):
            _store(floats, halves, kind, o + 3 * i + q * WIDE, pixels[q])


@njit(**FAST)
def _store_padded(planes, at, channel, n, scale, bias, floats, halves, kind, o):
    for j in range(0, n, LANES):
        i = min(j, n - LANES)
        eight = _eight_padded(planes, at + i, channel, scale, bias)
        for q in range(2):
            _store(floats, halves, kind, o + 4 * i + q * WIDE, eight[q])


# Streaming in functions of their own: as two branches of one, LLVM merges the stores and takes both for aligned.
@njit(**FAST)
def _stream_vectors(planes, at, channel, n, scale, bias, floats, halves, kind, o):
    for i in range(0, n, WIDE):
        pixels = _sixteen(planes, at + i, channel, scale, bias)
        for q in range(3):
            _stream(floats, halves, kind, o + 3 * i + q * WIDE, pixels[q])


@njit(**FAST)
def _stream_padded(planes, at, channel, n, scale, bias, floats, halves, kind, o):
    for i in range(0, n, LANES):
        eight = _eight_padded(planes, at + i, channel, scale, bias)
        for q in range(2):
            _stream(floats, halves, kind, o + 4 * i + q * WIDE, eight[q])


@njit(**FAST)
def store_pixels(planes, at, channel, n, scale, bias, floats, halves, kind, channels, streaming, o, spare):
    """Writes scale * x + bias of n pixels to the output from its element o on.

    Channel c of the pixels is planes[at + c * channel :]. The output is `floats`, or the uint16 bits `halves`.
    scale, bias: eight copies for each channel.
    channels: number of channels of the output, 3, or 4 with a last one of zeros.
    streaming: write past the caches; n must be a multiple of WIDE, and element o aligned to a vector.
    """
    keep_apart()
    if streaming and channels == 3:
        _stream_vectors(planes, at, channel, n, scale, bias, floats, halves, kind, o)
    elif streaming:
        _stream_padded(planes, at, channel, n, scale, bias, floats, halves, kind, o)
    elif n >= WIDE and channels == 3:
        _store_vectors(planes, at, channel, n, scale, bias, floats, halves, kind, o)
    elif n >= WIDE:
        _store_padded(planes, at, channel, n, scale, bias, floats, halves, kind, o)
    else:
        # Fewer pixels than a vector: through `spare`, lest it overwrite the next view.
        spare_halves = spare.view(np.uint16)
        start = np.int64(0)
        if channels == 3:
            _store_vectors(planes, at, channel, np.int64(WIDE), scale, bias, spare, spare_halves, kind, start)
        else:
            _store_padded(planes, at, channel, np.int64(WIDE), scale, bias, spare, spare_halves, kind, start)
        for i in range(channels * n):
            if kind == FLOAT32:
                floats[o + i] = spare[i]
            else:
                halves[o + i] = spare_halves[i]
