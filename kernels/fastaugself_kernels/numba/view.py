"""The kernel: views first..last of a batch, one after the other, on one thread.

Stage A resizes strips of rows into float planes and applies the colour operations that come before the contrast,
which needs the mean of their result. Stage B applies the rest, strip by strip, and stores, or blurs along rows.
Stage C blurs along columns and stores.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

from typing import Any

import numpy as np
from numba import njit

from ..params import (
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    GRAY,
    HEIGHT,
    HUE,
    JITTER,
    LEFT,
    OP_BRIGHTNESS,
    OP_CONTRAST,
    OP_SATURATION,
    ORDER,
    ROTATION,
    SATURATION,
    SIGMA,
    SOLARIZE,
    TOP,
    WIDTH,
    P,
)
from . import color, finish
from .resize import EXACT, STRIP, columns_of_group, fill_taps, prefetch_strip, resize_strip
from .simd import fence

# Buffers carved out of a thread's float scratch; `layout` holds where each starts.
(
    ROWS_WEIGHTS, COLUMNS_WEIGHTS, MIXED, COLUMNS, TILE, BLOCK, STRIPS, PADDED, GAUSSIAN, SPARE, PLANES, END,
) = range(12)  # fmt: skip
# Numbers that do not change within a batch: `shape` holds them.
VIEWS, BATCH, OUT_H, OUT_W, KERNEL, KIND, MARGIN, TOP_ROWS, PLANE, STRIP_PLANE = range(10)
# Switches that do not change within a batch: `switches` holds them.
ANTIALIAS, ROUNDING, SOLARIZE_FIRST, WANT_SHIFT, STREAMING = range(5)


@njit(**EXACT)
def _next_contrast(order, position):
    """The first position from `position` on that holds the contrast, 4 if none does."""
    while position < 4 and (order >> (2 * position)) & 3 != OP_CONTRAST:
        position += 1
    return position


@njit(**EXACT)
def _adjust(r, g, b, row, order, first, last, mean):
    """The colour operations at positions first..last of the order, in place."""
    for position in range(first, last):
        op = (order >> (2 * position)) & 3
        if op == OP_BRIGHTNESS:
            color.brightness(r, g, b, row[BRIGHTNESS])
        elif op == OP_CONTRAST:
            color.contrast(r, g, b, row[CONTRAST], mean)
        elif op == OP_SATURATION:
            color.saturation(r, g, b, row[SATURATION])
        else:
            color.hue(r, g, b, row[HUE])


@njit(**EXACT)
def _strip_rows(W):
    """Rows of the strips of stages A and B: whole strips of the resize, of about 2048 pixels."""
    return STRIP * max(1, 2048 // (STRIP * W))


@njit(**EXACT)
def augment_view(pixels, image, stride, row, floats, halves, target, shift, shape, switches, scale, bias, scratch,
                 layout, first_rows, first_columns):  # fmt: skip
    """One view of the image that starts at byte `image`, from its parameter row to element `target` of the output."""
    H, W, kernel = shape[OUT_H], shape[OUT_W], shape[KERNEL]
    size, plane = H * W, shape[PLANE]
    planes = scratch[layout[PLANES] :]
    gaussian = scratch[layout[GAUSSIAN] : layout[SPARE]]
    strips = scratch[layout[STRIPS] : layout[PADDED]]
    padded = scratch[layout[PADDED] : layout[GAUSSIAN]]
    start = shape[TOP_ROWS] * W  # of the image within each plane
    red, green, blue = start, start + plane, start + 2 * plane

    jitter, order = row[JITTER] > 0.5, int(row[ORDER])
    contrast = _next_contrast(order, 0) if jitter else 4
    done = contrast if jitter else 0
    sums, before, after = np.zeros(3), np.zeros(3), np.zeros(3)
    mean = np.float32(0)
    shifted = jitter and switches[WANT_SHIFT]

    # Stage A. A rotation by 180 degrees and a flip reverse the taps; by 90, the planes are written transposed.
    turns = int(row[ROTATION]) % 4
    transposed, flip = turns % 2 == 1, row[FLIP] > 0.5
    rows_out, columns_out = (W, H) if transposed else (H, W)
    reverse_rows = (turns == 2) if not transposed else (flip if turns == 1 else not flip)
    reverse_columns = (turns == 2) != flip if not transposed else turns == 1
    first_rows = first_rows[: -(-rows_out // STRIP) * STRIP]
    first_columns = first_columns[: -(-columns_out // STRIP) * STRIP]
    rows_weights = scratch[layout[ROWS_WEIGHTS] : layout[COLUMNS_WEIGHTS]]
    columns_weights = scratch[layout[COLUMNS_WEIGHTS] : layout[MIXED]]
    unit = np.float32(1) if switches[ROUNDING] else np.float32(1 / 255)
    height, width, antialias = int(row[HEIGHT]), int(row[WIDTH]), switches[ANTIALIAS]
    rows_K = fill_taps(height, rows_out, antialias, reverse_rows, unit, first_rows, rows_weights)
    origin = image + int(row[TOP]) * stride + int(row[LEFT]) * 3
    prefetch_strip(pixels, origin, stride, width, first_rows, rows_K, rows_out)
    columns_K = fill_taps(
        width, columns_out, antialias, reverse_columns, np.float32(1), first_columns, columns_weights
    )
    group = columns_of_group(width, columns_out, columns_K)
    mixed = scratch[layout[MIXED] : layout[COLUMNS]]
    columns = scratch[layout[COLUMNS] : layout[TILE]]
    tile = scratch[layout[TILE] : layout[BLOCK]]
    block = scratch[layout[BLOCK] : layout[STRIPS]]
    step = _strip_rows(W)
    for y in range(0, rows_out, step):
        for i in range(y, min(y + step, rows_out), STRIP):
            resize_strip(
                pixels, origin, stride, first_rows, rows_weights, rows_K, first_columns, columns_weights, columns_K,
                group, H, W, i, transposed, switches[ROUNDING], mixed, columns, tile, block, planes[start:], plane,
            )  # fmt: skip
        if jitter and not transposed:
            a, n = y * W, min(step, H - y) * W
            r, g, b = (
                planes[red + a : red + a + n],
                planes[green + a : green + a + n],
                planes[blue + a : blue + a + n],
            )
            if shifted:
                color.add_sums(r, g, b, before)
            _adjust(r, g, b, row, order, 0, contrast, mean)
            if contrast < 4:
                color.add_sums(r, g, b, sums)
    if jitter and transposed:
        r, g, b = planes[red : red + size], planes[green : green + size], planes[blue : blue + size]
        if shifted:
            color.add_sums(r, g, b, before)
        _adjust(r, g, b, row, order, 0, contrast, mean)
        if contrast < 4:
            color.add_sums(r, g, b, sums)
    if contrast < 4:
        mean = color.luma(sums, size)
        following = _next_contrast(order, contrast + 1)
        while following < 4:
            # Only for orders that are no permutation and name the contrast more than once.
            r, g, b = planes[red : red + size], planes[green : green + size], planes[blue : blue + size]
            _adjust(r, g, b, row, order, done, following, mean)
            sums[:] = 0
            color.add_sums(r, g, b, sums)
            mean = color.luma(sums, size)
            done, following = following, _next_contrast(order, following + 1)

    # Stage B.
    is_gray, sigma, threshold = row[GRAY] > 0.5, row[SIGMA], row[SOLARIZE]
    R = finish.fill_gaussian(kernel, sigma, gaussian) if sigma > 0 else 0
    solarize_last = not switches[SOLARIZE_FIRST] and threshold <= 1
    channels = 1 if is_gray else 3
    for y in range(0, H, step):
        a, rows = y * W, min(step, H - y)
        n = rows * W
        r, g, b = planes[red + a : red + a + n], planes[green + a : green + a + n], planes[blue + a : blue + a + n]
        if jitter:
            _adjust(r, g, b, row, order, done, 4, mean)
            if shifted:
                color.add_sums(r, g, b, after)
        if switches[SOLARIZE_FIRST] and threshold <= 1:
            color.solarize(r, threshold)
            color.solarize(g, threshold)
            color.solarize(b, threshold)
        if is_gray:
            color.gray(r, g, b)
        if R > 0:
            for c in range(channels):
                for i in range(0, rows, STRIP):
                    finish.blur_rows(
                        planes, start + c * plane + a + i * W, min(STRIP, rows - i), W, gaussian, R, shape[MARGIN],
                        padded,
                    )  # fmt: skip
            continue
        if solarize_last:
            color.solarize(r, threshold)
            if not is_gray:
                color.solarize(g, threshold)
                color.solarize(b, threshold)
        finish.emit(
            planes, red + a, (red if is_gray else green) + a, (red if is_gray else blue) + a, n, scale, bias, floats,
            halves, shape[KIND], switches[STREAMING], target + 3 * a, scratch[layout[SPARE] :],
        )  # fmt: skip
    for c in range(3 if switches[WANT_SHIFT] else 0):
        shift[c] = (before[c] - after[c]) / size

    # Stage C.
    if R > 0:
        for c in range(channels):
            finish.reflect_rows(planes, start + c * plane, H, W, R)
        for y in range(0, H, STRIP):
            n = min(STRIP, H - y) * W
            for c in range(channels):
                target_c = c * shape[STRIP_PLANE]
                finish.blur_columns(planes, start + c * plane + y * W, W, gaussian, R, strips, target_c)
                if solarize_last:
                    color.solarize(strips[target_c : target_c + n], threshold)
            second = shape[STRIP_PLANE] if not is_gray else 0
            finish.emit(
                strips, 0, second, 2 * second, n, scale, bias, floats, halves, shape[KIND], switches[STREAMING],
                target + 3 * y * W, scratch[layout[SPARE] :],
            )  # fmt: skip


SIGNATURE = (
    "void(int64, int64, uint8[::1], int64[::1], int64[::1], float32[::1], float32[::1], uint16[::1], float32[::1], "
    "int64[::1], boolean[::1], float32[::1], float32[::1], float32[::1], int64[::1], int64[::1], int64[::1])"
)


def make_kernel(sources: int, *, keep: bool) -> Any:
    """The function over items first..last of a batch, not yet compiled; `keep` caches it on disk.

    Numba's cache looks at this file only. `sources`, a non-negative digest of all the files, is part of its key
    because the function mentions it.
    """

    @njit(cache=keep, **EXACT)
    def augment_items(
        first, last, pixels, offsets, strides, params, floats, halves, shift, shape, switches, scale, bias, scratch,
        first_rows, first_columns, layout,
    ):  # fmt: skip
        if sources < 0:
            return
        V, B = shape[VIEWS], shape[BATCH]
        for item in range(first, last):
            # The views of an image are neighbours, so that it comes into the cache once.
            b, v = item // V, item % V
            n = v * B + b
            augment_view(
                pixels, offsets[b], strides[b], params[n * P : n * P + P], floats, halves,
                n * 3 * shape[OUT_H] * shape[OUT_W], shift[3 * n : 3 * n + 3], shape, switches, scale, bias,
                scratch, layout, first_rows, first_columns,
            )  # fmt: skip
        if switches[STREAMING]:
            fence()

    return augment_items
