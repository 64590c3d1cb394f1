"""Separable Gaussian blur of a float plane with reflected borders, `reference.gaussian_blur`.

Shape suffixes: H W of the output.
"""

import math

from numba import njit

from .flags import FAST
from .resize import STRIP
from .simd import WIDE, add, broadcast, keep_apart, load_wide, multiply_add, store, zero

SPAN = 2 * WIDE  # floats that the blur computes together
ROWS = 4  # rows that the vertical blur computes together
NEGLIGIBLE = 1e-6  # fraction of the Gaussian's weight that may be cut off its tails


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
