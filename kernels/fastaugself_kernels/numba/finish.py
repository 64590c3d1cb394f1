"""Blur, normalisation and the store: from float planes to interleaved output in its dtype.

Shape suffixes: H W of the output, C channels.
"""

import math

import numpy as np
from numba import njit

from .resize import FAST, STRIP
from .simd import (
    LANES,
    WIDE,
    add,
    broadcast,
    interleave,
    interleave_padded,
    join,
    keep_apart,
    load,
    load_wide,
    multiply_add,
    store,
    stream,
    to_bfloat,
    to_half,
    zero,
)

SPAN = 2 * WIDE  # floats that the blur makes together
ROWS = 4  # rows that the vertical blur makes together
NEGLIGIBLE = 1e-6  # weight of the Gaussian's tails that is left out, of 1

FLOAT32, FLOAT16, BFLOAT16 = range(3)  # output kinds


@njit(**FAST)
def _gaussian(k, sigma):
    return math.exp(-0.5 * (k / sigma) * (k / sigma))


@njit(**FAST)
def fill_gaussian(kernel, sigma, taps):
    """The weights of torchvision's kernel at -R..R, normalised, between ROWS zeros on each side.

    The tails of `kernel` taps are cut where they weigh less than NEGLIGIBLE. Returns R.
    """
    R = kernel // 2
    total = 1.0
    for k in range(1, R + 1):
        total += 2 * _gaussian(k, sigma)
    kept = total
    while R > 0 and total - kept + 2 * _gaussian(R, sigma) <= NEGLIGIBLE * total:
        kept -= 2 * _gaussian(R, sigma)
        R -= 1
    for k in range(2 * (ROWS + R) + 1):
        distance = abs(k - ROWS - R)
        taps[k] = _gaussian(distance, sigma) / kept if distance <= R else 0.0
    return R


@njit(**FAST)
def _pad_rows(plane, start, rows, W, R, margin, padded, pitch):
    """Copies rows of W floats with R reflected ones on each side; row y begins at y * pitch + margin."""
    for y in range(rows):
        source, target = start + y * W, y * pitch + margin
        for x in range(0, W, WIDE):
            store(padded, target + x, load_wide(plane, source + x))
        for k in range(1, R + 1):
            padded[target - k] = plane[source + k]
            padded[target + W - 1 + k] = plane[source + W - 1 - k]


@njit(**FAST)
def blur_rows(plane, start, rows, W, taps, R, margin, padded):
    """The horizontal blur of rows of W floats, in place."""
    keep_apart()
    pitch = 2 * margin + -(-W // WIDE) * WIDE + SPAN
    center, behind = ROWS + R, STRIP * pitch
    for y in range(rows):
        if y % STRIP == 0:
            # Rows are copied well before they are blurred: a vector read across stores still under way would wait.
            _pad_rows(plane, start + y * W, min(STRIP, rows - y), W, R, margin, padded, pitch)
        row, target = y % STRIP * pitch + margin, start + y * W
        for j in range(0, W, SPAN):
            x = min(j, max(W - SPAN, 0))
            p = row + x
            weight = broadcast(taps, center)
            a = multiply_add(weight, load_wide(padded, p), zero())
            b = multiply_add(weight, load_wide(padded, p + WIDE), zero())
            for k in range(1, R + 1):
                weight = broadcast(taps, center + k)
                a = multiply_add(weight, add(load_wide(padded, p - k), load_wide(padded, p + k)), a)
                b = multiply_add(weight, add(load_wide(padded, p + WIDE - k), load_wide(padded, p + WIDE + k)), b)
            if W >= SPAN:
                store(plane, target + x, a)
                store(plane, target + x + WIDE, b)
            else:
                # Rows narrower than the vectors go through memory behind the copies, lest they overwrite the next.
                store(padded, behind, a)
                store(padded, behind + WIDE, b)
                for n in range(W):
                    plane[target + n] = padded[behind + n]


@njit(**FAST)
def _copy(plane, source, target, n):
    # Slices, because LLVM vectorises indices only that it knows not to be negative.
    x, y = plane[source : source + n], plane[target : target + n]
    for i in range(n):
        y[i] = x[i]


@njit(**FAST)
def reflect_rows(plane, start, H, W, R):
    """Fills the R rows above and below the plane with its reflections."""
    last = start + (H - 1) * W
    for k in range(1, R + 1):
        _copy(plane, start + k * W, start - k * W, W)
        _copy(plane, last - k * W, last + k * W, W)


@njit(**FAST)
def blur_columns(plane, start, W, taps, R, strip, target):
    """The vertical blur of STRIP rows of W floats, into `strip`.

    Four rows at a time share their loads. Past the end of a row it writes what the next row, or nobody, overwrites.
    """
    keep_apart()
    for y in range(0, STRIP * W, ROWS * W):
        for j in range(0, W, SPAN):
            x = y + min(j, max(W - SPAN, 0))
            a0 = zero()
            b0 = zero()
            a1 = zero()
            b1 = zero()
            a2 = zero()
            b2 = zero()
            a3 = zero()
            b3 = zero()
            p = start + x - R * W
            for k in range(ROWS, 2 * ROWS + 2 * R):
                a = load_wide(plane, p)
                b = load_wide(plane, p + WIDE)
                weight = broadcast(taps, k)
                a0 = multiply_add(weight, a, a0)
                b0 = multiply_add(weight, b, b0)
                weight = broadcast(taps, k - 1)
                a1 = multiply_add(weight, a, a1)
                b1 = multiply_add(weight, b, b1)
                weight = broadcast(taps, k - 2)
                a2 = multiply_add(weight, a, a2)
                b2 = multiply_add(weight, b, b2)
                weight = broadcast(taps, k - 3)
                a3 = multiply_add(weight, a, a3)
                b3 = multiply_add(weight, b, b3)
                p += W
            q = target + x
            store(strip, q, a0)
            store(strip, q + WIDE, b0)
            store(strip, q + W, a1)
            store(strip, q + W + WIDE, b1)
            store(strip, q + 2 * W, a2)
            store(strip, q + 2 * W + WIDE, b2)
            store(strip, q + 3 * W, a3)
            store(strip, q + 3 * W + WIDE, b3)


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
def emit(planes, at, channel, n, scale, bias, floats, halves, kind, channels, streaming, o, spare):
    """Writes n pixels, whose channels start at `at` of `planes` and every `channel` from there, from element o of the
    output on.

    scale, bias: eight copies for each channel. The output is `floats`, or its bits in the uint16 `halves`.
    channels: of the output, 3, or 4 for one of zeros.
    streaming: past the caches; n must be a multiple of WIDE and element o at a multiple of a vector's size.
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
