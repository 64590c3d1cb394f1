"""Crop and resize of packed RGB bytes to float planes, sixteen output rows at a time.

Vertical pass first, while the data are the contiguous bytes of the photo: widen the source rows once, mix them into
sixteen output rows. Then transpose, so that lane r of a vector is row r: the horizontal pass reads whole vectors,
where along x it would gather single floats. Another transpose per 8x8 block gives rows again, in one plane per
channel. All of it happens in the first two cache levels.

Shape suffixes: H W of the output, C channels.
"""

import numpy as np
from numba import njit

from .simd import (
    LANES,
    WIDE,
    broadcast,
    load,
    load_bytes,
    load_wide,
    multiply_add,
    prefetch,
    round_to_255ths,
    store,
    transpose,
    zero,
)

STRIP = WIDE  # output rows made together
BLOCK = 4 * WIDE  # bytes that the vertical pass mixes together
LINE = 64  # bytes of a cache line
CHUNK = 192  # source bytes of a row, at most about, from which the horizontal pass makes a group of output columns

EXACT = dict(nogil=True, error_model="numpy", boundscheck=False)
"""No fast-math: taps are computed as PyTorch does, to the last bit of a rounding."""
FAST = dict(nogil=True, error_model="numpy", boundscheck=False, fastmath=True)


@njit(**EXACT)
def _tap_range(i, n_in, ratio, antialias):
    """Centre, first input and end of the taps of output i, in PyTorch's mixture of float32 and float64."""
    center = np.float32(np.float64(ratio) * (i + 0.5))
    if antialias:
        support = max(ratio, np.float32(1))
        low = max(int(center - support + 0.5), 0)
        return center, low, min(int(center + support + 0.5), n_in)
    center = max(np.float32(center - np.float32(0.5)), np.float32(0))
    return np.float32(center + np.float32(0.5)), int(center), min(int(center) + 2, n_in)


@njit(**EXACT)
def fill_taps(n_in, n_out, antialias, reverse, scale, first, weights):
    """Taps of one axis: output i is the sum over k < K of weights[i * K + k] * input[first[i] + k].

    All taps lie inside the input. `reverse` mirrors the output; `scale` multiplies the weights. Both tables are
    extended to a multiple of STRIP outputs. Returns K.
    """
    ratio = np.float32(n_in) / np.float32(n_out)
    inverse = np.float32(1) / max(ratio, np.float32(1)) if antialias else np.float32(1)
    K = 0
    for i in range(n_out):
        _, low, high = _tap_range(i, n_in, ratio, antialias)
        K = max(K, high - low)
    for i in range(n_out):
        center, low, high = _tap_range(i, n_in, ratio, antialias)
        start = min(low, n_in - K)
        out = n_out - 1 - i if reverse else i
        total = np.float32(0)
        for k in range(K):
            distance = np.float32((np.float64(np.float32(start + k) - center) + 0.5) * inverse)
            weight = max(np.float32(1) - abs(distance), np.float32(0)) if low <= start + k < high else np.float32(0)
            weights[out * K + k] = weight
            total += weight
        for k in range(K):
            weights[out * K + k] = weights[out * K + k] / total * scale
        first[out] = start
    for i in range(n_out, -(-n_out // STRIP) * STRIP):
        first[i] = first[n_out - 1]
        for k in range(K):
            weights[i * K + k] = weights[(n_out - 1) * K + k]
    return K


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
        row, w, q = source + first[i0 + r] * stride, (i0 + r) * K, r * pitch
        # The last block of a row starts early rather than read past it, which may be past the end of `pixels`.
        if n >= BLOCK:
            for j in range(0, n, BLOCK):
                start = min(j, n - BLOCK)
                a = zero()
                b = zero()
                c = zero()
                d = zero()
                p = row + start
                for k in range(K):
                    weight = broadcast(weights, w + k)
                    a = multiply_add(weight, load_bytes(pixels, p), a)
                    b = multiply_add(weight, load_bytes(pixels, p + WIDE), b)
                    c = multiply_add(weight, load_bytes(pixels, p + 2 * WIDE), c)
                    d = multiply_add(weight, load_bytes(pixels, p + 3 * WIDE), d)
                    p += stride
                store(mixed, q + start, a)
                store(mixed, q + start + WIDE, b)
                store(mixed, q + start + 2 * WIDE, c)
                store(mixed, q + start + 3 * WIDE, d)
        elif n >= WIDE:
            for j in range(0, n, WIDE):
                start = min(j, n - WIDE)
                a = zero()
                p = row + start
                for k in range(K):
                    a = multiply_add(broadcast(weights, w + k), load_bytes(pixels, p), a)
                    p += stride
                store(mixed, q + start, a)
        else:
            for j in range(n):
                total = np.float32(0)
                for k in range(K):
                    total += weights[w + k] * np.float32(pixels[row + k * stride + j])
                mixed[q + j] = total


@njit(**FAST)
def _turn(rows, start, pitch, columns, target, target_pitch):
    """Transposes an 8x8 block: element (r, j) at start + r * pitch + j goes to target + j * target_pitch + r."""
    block = transpose(
        load(rows, start),
        load(rows, start + pitch),
        load(rows, start + 2 * pitch),
        load(rows, start + 3 * pitch),
        load(rows, start + 4 * pitch),
        load(rows, start + 5 * pitch),
        load(rows, start + 6 * pitch),
        load(rows, start + 7 * pitch),
    )
    for j in range(LANES):
        store(columns, target + j * target_pitch, block[j])


@njit(**FAST)
def _horizontal(columns, base, first, weights, K, x0, rounding, tile):
    """The horizontal pass: eight output columns, tile[((x - x0) * 3 + c) * STRIP + r], rounded or not.

    `columns` starts at source pixel `base`.
    """
    t = 0
    for x in range(x0, x0 + LANES, 2):
        r0 = zero()
        g0 = zero()
        b0 = zero()
        r1 = zero()
        g1 = zero()
        b1 = zero()
        p0, p1 = (first[x] - base) * 3 * STRIP, (first[x + 1] - base) * 3 * STRIP
        w = x * K
        for k in range(K):
            weight = broadcast(weights, w + k)
            r0 = multiply_add(weight, load_wide(columns, p0), r0)
            g0 = multiply_add(weight, load_wide(columns, p0 + STRIP), g0)
            b0 = multiply_add(weight, load_wide(columns, p0 + 2 * STRIP), b0)
            weight = broadcast(weights, w + K + k)
            r1 = multiply_add(weight, load_wide(columns, p1), r1)
            g1 = multiply_add(weight, load_wide(columns, p1 + STRIP), g1)
            b1 = multiply_add(weight, load_wide(columns, p1 + 2 * STRIP), b1)
            p0 += 3 * STRIP
            p1 += 3 * STRIP
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
def _place(tile, H, W, i0, x0, transposed, planes, plane_stride, block):
    """Writes a tile to the planes; at the edges only what lies inside. `transposed` keeps its columns as rows."""
    for c in range(3):
        plane = c * plane_stride
        if transposed:
            for j in range(min(LANES, H - x0)):
                for n in range(min(STRIP, W - i0)):
                    planes[plane + (x0 + j) * W + i0 + n] = tile[(3 * j + c) * STRIP + n]
            continue
        for half in range(0, STRIP, LANES):
            i = i0 + half
            target = plane + i * W + x0
            if i + LANES <= H and x0 + LANES <= W:
                _turn(tile, c * STRIP + half, 3 * STRIP, planes, target, W)
            elif i < H:
                _turn(tile, c * STRIP + half, 3 * STRIP, block, 0, LANES)
                for j in range(min(LANES, H - i)):
                    for n in range(min(LANES, W - x0)):
                        planes[target + j * W + n] = block[j * LANES + n]


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
    H, W, i0, transposed, rounding, mixed, columns, tile, block, planes, plane_stride,
):  # fmt: skip
    """Rows i0..i0+STRIP of the resized crop whose first byte is `origin` (columns of the output, when transposed)."""
    width = H if transposed else W
    ahead, ahead_rows = _rows_of_strip(rows_first, rows_K, i0 + STRIP, W if transposed else H)
    for g0 in range(0, width, group):
        last = min(g0 + group, -(-width // LANES) * LANES) - 1
        base = min(columns_first[g0], columns_first[last])
        n = (max(columns_first[g0], columns_first[last]) + columns_K - base) * 3
        pitch = -(-n // LANES) * LANES
        _mix(pixels, origin + base * 3, stride, rows_first, rows_weights, rows_K, i0, n, mixed, pitch,
             ahead, ahead_rows)  # fmt: skip
        for half in range(0, STRIP, LANES):
            for j in range(0, pitch, LANES):
                _turn(mixed, half * pitch + j, pitch, columns, j * STRIP + half, STRIP)
        for x0 in range(g0, last, LANES):
            _horizontal(columns, base, columns_first, columns_weights, columns_K, x0, rounding, tile)
            _place(tile, H, W, i0, x0, transposed, planes, plane_stride, block)


@njit(**EXACT)
def columns_of_group(n_in, n_out, K):
    """Output columns, a multiple of LANES, that CHUNK source bytes suffice for; at least LANES."""
    pixels = CHUNK // 3 - K
    return max(LANES, int(pixels * n_out / n_in) // LANES * LANES)
