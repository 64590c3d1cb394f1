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
    """The horizontal blur of at most STRIP rows of W floats, in place."""
    # All rows are copied before the first is blurred: a vector read across stores that are still under way waits.
    pitch = 2 * margin + -(-W // WIDE) * WIDE + SPAN
    _pad_rows(plane, start, rows, W, R, margin, padded, pitch)
    center, behind = ROWS + R, STRIP * pitch
    for y in range(rows):
        row, target = y * pitch + margin, start + y * W
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
def reflect_rows(plane, start, H, W, R):
    """Fills the R rows above and below the plane with its reflections."""
    for k in range(1, R + 1):
        above, below = start - k * W, start + (H - 1 + k) * W
        plane[above : above + W] = plane[start + k * W : start + k * W + W]
        plane[below : below + W] = plane[below - 2 * k * W : below - 2 * k * W + W]


@njit(**FAST)
def blur_columns(plane, start, W, taps, R, strip, target):
    """The vertical blur of STRIP rows of W floats, into `strip`.

    Four rows at a time share their loads. Past the end of a row it writes what the next row, or nobody, overwrites.
    """
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
def _normalised(planes, r, g, b, scale, bias):
    """Eight pixels, normalised and interleaved: three vectors."""
    red = multiply_add(load(planes, r), load(scale, 0), load(bias, 0))
    green = multiply_add(load(planes, g), load(scale, LANES), load(bias, LANES))
    blue = multiply_add(load(planes, b), load(scale, 2 * LANES), load(bias, 2 * LANES))
    return interleave(red, green, blue)


@njit(**FAST)
def _store_vectors(planes, r, g, b, n, scale, bias, floats, halves, kind, o):
    for j in range(0, n, LANES):
        i = min(j, n - LANES)
        block = _normalised(planes, r + i, g + i, b + i, scale, bias)
        for q in range(3):
            p = o + 3 * i + q * LANES
            if kind == FLOAT32:
                store(floats, p, block[q])
            elif kind == FLOAT16:
                store(halves, p, to_half(block[q]))
            else:
                store(halves, p, to_bfloat(block[q]))


@njit(**FAST)
def _stream_vectors(planes, r, g, b, n, scale, bias, floats, halves, kind, o):
    # A function of its own: as two branches of one loop, LLVM merges the stores and takes both for aligned.
    for i in range(0, n, LANES):
        block = _normalised(planes, r + i, g + i, b + i, scale, bias)
        for q in range(3):
            p = o + 3 * i + q * LANES
            if kind == FLOAT32:
                stream(floats, p, block[q])
            elif kind == FLOAT16:
                stream(halves, p, to_half(block[q]))
            else:
                stream(halves, p, to_bfloat(block[q]))


@njit(**FAST)
def emit(planes, r, g, b, n, scale, bias, floats, halves, kind, streaming, o, spare):
    """Writes n pixels, whose channels start at r, g and b of `planes`, from element o of the output on.

    scale, bias: eight copies for each channel. The output is `floats`, or its bits in the uint16 `halves`.
    streaming: past the caches; n must be a multiple of LANES and element o at a multiple of a vector's size.
    """
    if streaming:
        _stream_vectors(planes, r, g, b, n, scale, bias, floats, halves, kind, o)
    elif n >= LANES:
        _store_vectors(planes, r, g, b, n, scale, bias, floats, halves, kind, o)
    else:
        # Fewer pixels than a vector: through `spare`, lest it overwrite the next view.
        spare_halves = spare.view(np.uint16)
        _store_vectors(planes, r, g, b, LANES, scale, bias, spare, spare_halves, kind, 0)
        for i in range(3 * n):
            if kind == FLOAT32:
                floats[o + i] = spare[i]
            else:
                halves[o + i] = spare_halves[i]
