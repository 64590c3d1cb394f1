"""Crop and resize of packed RGB bytes to float planes, sixteen output rows at a time.

Vertical pass first, while the data are the contiguous bytes of the photo: widen the source rows once, mix them into
sixteen output rows. Then transpose, so that lane r of a vector is row r: the horizontal pass reads whole vectors,
where along x it would gather single floats. Another transpose per 8x8 block gives rows again, in one plane per
channel. All of it happens in the first two cache levels.

Shape suffixes: H W of the output, C channels.
"""

import numpy as np
from numba import njit

from .flags import EXACT, FAST
from .simd import (
    LANES,
    WIDE,
    broadcast,
    load_bytes,
    load_pair,
    load_wide,
    multiply_add,
    prefetch,
    round_to_255ths,
    store,
    transpose,
    zero,
)

STRIP = WIDE  # output rows made together
TILE = WIDE  # output columns made together
BLOCK = 4 * WIDE  # bytes that the vertical pass mixes together
LINE = 64  # bytes of a cache line
CHUNK = 256  # source bytes of a row, at most about, from which the horizontal pass makes a group of output columns


@njit(**EXACT)
def fill_taps(n_in, n_out, antialias, reverse, scale, first, weights):
    """Taps of one axis: output i is the sum over k < K of weights[k * side + i] * input[first[i] + k].

    PyTorch's triangle filter, centres rounded to float32 as there. All taps lie inside the input. `reverse` mirrors
    the output; `scale` multiplies the weights. The outputs are extended to a multiple of STRIP, repeating the last:
    `side`, the length of `first`. Returns K.
    """
    side = first.size
    ratio = np.float32(n_in) / np.float32(n_out)
    support = max(ratio, np.float32(1)) if antialias else np.float32(1)
    inverse = np.float32(1) / support
    K = 1
    for i in range(n_out):
        center = np.float32(np.float64(ratio) * (i + 0.5))
        if not antialias:
            center = max(center, np.float32(0.5))
        low = max(int(center - support + 0.5), 0)
        first[i] = low
        K = max(K, min(int(center + support + 0.5), n_in) - low)
    totals, offsets = weights[K * side : K * side + side], weights[K * side + side : K * side + 2 * side]
    for i in range(side):
        center = np.float32(np.float64(ratio) * (min(i, n_out - 1) + 0.5))
        if not antialias:
            center = max(center, np.float32(0.5))
        first[i] = min(first[min(i, n_out - 1)], n_in - K)
        offsets[i] = np.float32(np.float64(first[i]) - center + 0.5) * inverse
        totals[i] = 0
    for k in range(K):
        taps = weights[k * side : k * side + side]
        for i in range(side):
            taps[i] = max(np.float32(1) - abs(offsets[i] + np.float32(k) * inverse), np.float32(0))
            totals[i] += taps[i]
    for k in range(K):
        taps = weights[k * side : k * side + side]
        for i in range(side):
            taps[i] *= scale / totals[i]
    if reverse:
        _reverse(first, n_out)
        for k in range(K):
            _reverse(weights[k * side : k * side + side], n_out)
    return K


@njit(**EXACT)
def _reverse(values, n):
    """Mirrors the first n values and repeats the new last one after them."""
    for i in range(n // 2):
        values[i], values[n - 1 - i] = values[n - 1 - i], values[i]
    for i in range(n, values.size):
        values[i] = values[n - 1]


@njit(**FAST)
def _mix(pixels, source, stride, first, weights, K, i0, n, mixed, pitch, ahead, ahead_rows):
    """The vertical pass: STRIP output rows of n floats, row r at r * pitch, from the bytes of the photo.

    Meanwhile fetches the same columns of `ahead_rows` rows from row `ahead` on, which the next strip will need: they
    come in pieces too short for the processor to foresee.
    """
    for r in range(STRIP):
        for y in range(ahead + ahead_rows * r // STRIP, ahead + ahead_rows * (r + 1) // STRIP):
            for j in range(0, n + LINE, LINE):
                prefetch(pixels, source + y * stride + j)
        row, side, q = source + first[i0 + r] * stride, first.size, r * pitch
        # The last block of a row starts early rather than read past it, which may be past the end of `pixels`.
        if n >= BLOCK:
            for j in range(0, n, BLOCK):
                start = min(j, n - BLOCK)
                a = zero()
                b = zero()
                c = zero()
                d = zero()
                p, w = row + start, i0 + r
                for _ in range(K):
                    weight = broadcast(weights, w)
                    a = multiply_add(weight, load_bytes(pixels, p), a)
                    b = multiply_add(weight, load_bytes(pixels, p + WIDE), b)
                    c = multiply_add(weight, load_bytes(pixels, p + 2 * WIDE), c)
                    d = multiply_add(weight, load_bytes(pixels, p + 3 * WIDE), d)
                    p += stride
                    w += side
                store(mixed, q + start, a)
                store(mixed, q + start + WIDE, b)
                store(mixed, q + start + 2 * WIDE, c)
                store(mixed, q + start + 3 * WIDE, d)
        elif n >= WIDE:
            for j in range(0, n, WIDE):
                start = min(j, n - WIDE)
                a = zero()
                p, w = row + start, i0 + r
                for _ in range(K):
                    a = multiply_add(broadcast(weights, w), load_bytes(pixels, p), a)
                    p += stride
                    w += side
                store(mixed, q + start, a)
        else:
            for j in range(n):
                total = np.float32(0)
                for k in range(K):
                    total += weights[k * side + i0 + r] * np.float32(pixels[row + k * stride + j])
                mixed[q + j] = total


@njit(**FAST)
def _turn(rows, start, pitch, columns, target, target_pitch):
    """Transposes 16 rows of 8: element (r, j) at start + r * pitch + j goes to target + j * target_pitch + r.

    Sixteen rows at a time, because writing whole cache lines takes half as long as writing them by halves.
    """
    for j in (0, 4):
        p = start + j
        upper = transpose(
            load_pair(rows, p, p + 4 * pitch),
            load_pair(rows, p + pitch, p + 5 * pitch),
            load_pair(rows, p + 2 * pitch, p + 6 * pitch),
            load_pair(rows, p + 3 * pitch, p + 7 * pitch),
        )
        p += LANES * pitch
        lower = transpose(
            load_pair(rows, p, p + 4 * pitch),
            load_pair(rows, p + pitch, p + 5 * pitch),
            load_pair(rows, p + 2 * pitch, p + 6 * pitch),
            load_pair(rows, p + 3 * pitch, p + 7 * pitch),
        )
        for k in range(4):
            q = target + (j + k) * target_pitch
            store(columns, q, upper[k])
            store(columns, q + LANES, lower[k])


@njit(**FAST)
def _horizontal(columns, base, first, weights, K, x0, rounding, tile):
    """The horizontal pass: TILE output columns, tile[((x - x0) * 3 + c) * STRIP + r], rounded or not.

    `columns` starts at source pixel `base`.
    """
    t = 0
    for x in range(x0, x0 + TILE, 2):
        r0 = zero()
        g0 = zero()
        b0 = zero()
        r1 = zero()
        g1 = zero()
        b1 = zero()
        p0, p1 = (first[x] - base) * 3 * STRIP, (first[x + 1] - base) * 3 * STRIP
        w = x
        for _ in range(K):
            weight = broadcast(weights, w)
            r0 = multiply_add(weight, load_wide(columns, p0), r0)
            g0 = multiply_add(weight, load_wide(columns, p0 + STRIP), g0)
            b0 = multiply_add(weight, load_wide(columns, p0 + 2 * STRIP), b0)
            weight = broadcast(weights, w + 1)
            r1 = multiply_add(weight, load_wide(columns, p1), r1)
            g1 = multiply_add(weight, load_wide(columns, p1 + STRIP), g1)
            b1 = multiply_add(weight, load_wide(columns, p1 + 2 * STRIP), b1)
            p0 += 3 * STRIP
            p1 += 3 * STRIP
            w += first.size
        if rounding:
            r0 = round_to_255ths(r0)
            g0 = round_to_255ths(g0)
            b0 = round_to_255ths(b0)
            r1 = round_to_255ths(r1)
            g1 = round_to_255ths(g1)
            b1 = round_to_255ths(b1)
        store(tile, t, r0)
        store(tile, t + STRIP, g0)
        store(tile, t + 2 * STRIP, b0)
        store(tile, t + 3 * STRIP, r1)
        store(tile, t + 4 * STRIP, g1)
        store(tile, t + 5 * STRIP, b1)
        t += 6 * STRIP


@njit(**FAST)
def _place(tile, H, W, i0, x0, transposed, planes, start, plane_stride, block):
    """Writes a tile to the planes; at the edges only what lies inside. `transposed` keeps its columns as rows."""
    inside = i0 + STRIP <= H and x0 + TILE <= W
    for c in range(3):
        plane = start + c * plane_stride
        if transposed:
            for j in range(min(TILE, H - x0)):
                for n in range(min(STRIP, W - i0)):
                    planes[plane + (x0 + j) * W + i0 + n] = tile[(3 * j + c) * STRIP + n]
        elif inside:
            for half in range(0, STRIP, LANES):
                _turn(tile, c * STRIP + half, 3 * STRIP, planes, plane + (i0 + half) * W + x0, W)
        else:
            for half in range(0, STRIP, LANES):
                _turn(tile, c * STRIP + half, 3 * STRIP, block, half * TILE, TILE)
            for j in range(min(STRIP, H - i0)):
                for n in range(min(TILE, W - x0)):
                    planes[plane + (i0 + j) * W + x0 + n] = block[j * TILE + n]


@njit(**EXACT)
def _rows_of_strip(first, K, i0, n_out):
    """First source row of the strip at i0 and how many it needs, 0 when there is no such strip."""
    if i0 >= n_out:
        return 0, 0
    a, b = first[i0], first[i0 + STRIP - 1]
    return min(a, b), abs(a - b) + K


@njit(**FAST)
def prefetch_strip(pixels, origin, stride, width, first, K, n_out):
    """Starts fetching the source rows of the first strip."""
    low, rows = _rows_of_strip(first, K, 0, n_out)
    for y in range(low, low + rows):
        for j in range(0, width * 3 + LINE, LINE):
            prefetch(pixels, origin + y * stride + j)


@njit(**FAST)
def resize_strip(
    pixels, origin, stride, rows_first, rows_weights, rows_K, columns_first, columns_weights, columns_K, group,
    H, W, i0, transposed, rounding, mixed, columns, tile, block, planes, start, plane_stride,
):  # fmt: skip
    """Rows i0..i0+STRIP of the resized crop whose first byte is `origin` (columns of the output, when transposed)."""
    rows_out, columns_out = (W, H) if transposed else (H, W)
    ahead, ahead_rows = _rows_of_strip(rows_first, rows_K, i0 + STRIP, rows_out)
    for g0 in range(0, columns_out, group):
        end = min(g0 + group, -(-columns_out // TILE) * TILE)
        a, b = columns_first[g0], columns_first[end - 1]
        base, n = min(a, b), (abs(a - b) + columns_K) * 3
        pitch = -(-n // LANES) * LANES
        _mix(pixels, origin + base * 3, stride, rows_first, rows_weights, rows_K, i0, n, mixed, pitch,
             ahead, ahead_rows)  # fmt: skip
        for j in range(0, pitch, LANES):
            _turn(mixed, j, pitch, columns, j * STRIP, STRIP)
        for x0 in range(g0, end, TILE):
            _horizontal(columns, base, columns_first, columns_weights, columns_K, x0, rounding, tile)
            _place(tile, H, W, i0, x0, transposed, planes, start, plane_stride, block)


@njit(**EXACT)
def columns_of_group(n_in, n_out, K):
    """Output columns, a multiple of TILE, that CHUNK source bytes suffice for; at least TILE."""
    return max(TILE, int((CHUNK // 3 - K) * n_out / n_in) // TILE * TILE)
