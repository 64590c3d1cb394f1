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
from .simd import fence, keep_apart

# What does not change within a batch: whole numbers, and switches.
VIEWS, BATCH, OUT_H, OUT_W, KERNEL, KIND, MARGIN, TOP_ROWS, PLANE, STRIP_PLANE, STRIP_ROWS, CHANNELS = range(12)
ANTIALIAS, ROUNDING, SOLARIZE_FIRST, WANT_SHIFT, STREAMING = range(5)
# Where the float64 scratch holds the sums of the three channels.
BEFORE_JITTER, BEFORE_CONTRAST, AFTER_JITTER, NOWHERE = 0, 3, 6, -1


@njit(**EXACT)
def _next_contrast(order, position):
    """The first position from `position` on that holds the contrast, 4 if none does."""
    while position < 4 and (order >> (2 * position)) & 3 != OP_CONTRAST:
        position += 1
    return position


@njit(**EXACT)
def _adjust(planes, start, plane, n, row, order, first, last, mean, sums, before, after):
    """The colour operations at positions first..last of the order, on n pixels of the planes, in place.

    Adds the sums of the channels before and after them to sums[before:] and sums[after:].
    """
    keep_apart()
    r = planes[start : start + n]
    g = planes[start + plane : start + plane + n]
    b = planes[start + 2 * plane : start + 2 * plane + n]
    if before != NOWHERE:
        color.add_sums(r, g, b, sums, before)
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
    if after != NOWHERE:
        color.add_sums(r, g, b, sums, after)


@njit(**EXACT)
def _solarize(planes, start, plane, channels, n, threshold):
    keep_apart()
    for c in range(channels):
        color.solarize(planes[start + c * plane : start + c * plane + n], threshold)


@njit(**EXACT)
def _to_gray(planes, start, plane, n):
    keep_apart()
    color.gray(
        planes[start : start + n],
        planes[start + plane : start + plane + n],
        planes[start + 2 * plane : start + 2 * plane + n],
    )


@njit(**EXACT)
def _stage_a(pixels, image, stride, row, planes, start, plane, H, W, strip_rows, switches, order, contrast,
             sums, rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block):  # fmt: skip
    """Crop, resize, rotation, flip, and the colour operations at positions 0..contrast, none when that is -1."""
    keep_apart()
    # A rotation by 180 degrees and a flip reverse the taps; by 90 degrees, the planes are written transposed.
    turns, flip = int(row[ROTATION]) % 4, row[FLIP] > 0.5
    transposed, rounding = turns % 2 == 1, switches[ROUNDING]
    reverse_rows = (flip if turns == 1 else not flip) if transposed else turns == 2
    reverse_columns = turns == 1 if transposed else (turns == 2) != flip
    rows_out, columns_out = (W, H) if transposed else (H, W)
    rows_first = rows_first[: -(-rows_out // STRIP) * STRIP]
    columns_first = columns_first[: -(-columns_out // STRIP) * STRIP]
    height, width = int(row[HEIGHT]), int(row[WIDTH])
    origin = image + int(row[TOP]) * stride + int(row[LEFT]) * 3
    one = np.float32(1)
    unit = one if rounding else np.float32(1 / 255)
    rows_K = fill_taps(height, rows_out, switches[ANTIALIAS], reverse_rows, unit, rows_first, rows_weights)
    prefetch_strip(pixels, origin, stride, width, rows_first, rows_K, rows_out)
    columns_K = fill_taps(width, columns_out, switches[ANTIALIAS], reverse_columns, one, columns_first, columns_weights)
    group = columns_of_group(width, columns_out, columns_K)
    before = BEFORE_JITTER if switches[WANT_SHIFT] else NOWHERE
    after = BEFORE_CONTRAST if contrast < 4 else NOWHERE
    done = 0
    for y in range(0, rows_out, STRIP):
        resize_strip(
            pixels, origin, stride, rows_first, rows_weights, rows_K, columns_first, columns_weights, columns_K, group,
            H, W, y, transposed, rounding, mixed, columns, tile, block, planes, start, plane,
        )  # fmt: skip
        # The strip is still in the cache, unless it is transposed: then it is complete at the end only.
        ready = min(y + STRIP, rows_out)
        if contrast >= 0 and (ready == rows_out or (ready - done >= strip_rows and not transposed)):
            n = (ready - done) * W
            _adjust(planes, start + done * W, plane, n, row, order, 0, contrast, one, sums, before, after)
            done = ready


@njit(**EXACT)
def augment_view(pixels, image, stride, row, floats, halves, target, shift, shape, switches, scale, bias,
                 rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block, planes, strips,
                 padded, gaussian, spare, sums):  # fmt: skip
    """One view of the image that starts at byte `image`, from its parameter row to element `target` of the output."""
    keep_apart()
    H, W, plane, strip_rows = shape[OUT_H], shape[OUT_W], shape[PLANE], shape[STRIP_ROWS]
    start, size = shape[TOP_ROWS] * W, H * W  # of the image within each plane
    jitter, order = row[JITTER] > 0.5, int(row[ORDER])
    for i in range(sums.size):
        sums[i] = 0
    mean = np.float32(0)
    done = _next_contrast(order, 0) if jitter else 4
    _stage_a(pixels, image, stride, row, planes, start, plane, H, W, strip_rows, switches, order,
             done if jitter else -1, sums, rows_first, rows_weights, columns_first, columns_weights, mixed, columns,
             tile, block)  # fmt: skip
    while done < 4:
        mean = color.luma(sums, BEFORE_CONTRAST, size)
        following = _next_contrast(order, done + 1)
        if following == 4:
            break
        # Only for an order that is no permutation and names the contrast again.
        for i in range(BEFORE_CONTRAST, AFTER_JITTER):
            sums[i] = 0
        _adjust(planes, start, plane, size, row, order, done, following, mean, sums, NOWHERE, BEFORE_CONTRAST)
        done = following

    # Stage B.
    is_gray, sigma, threshold = row[GRAY] > 0.5, row[SIGMA], row[SOLARIZE]
    R = finish.fill_gaussian(shape[KERNEL], sigma, gaussian) if sigma > 0 else 0
    channels = 1 if is_gray else 3
    solarize_first, solarize_last = threshold <= 1 and switches[SOLARIZE_FIRST], threshold <= 1
    solarize_last = solarize_last and not solarize_first
    after = AFTER_JITTER if switches[WANT_SHIFT] else NOWHERE
    second = 0 if is_gray else plane
    for y in range(0, H, strip_rows):
        rows, at = min(strip_rows, H - y), start + y * W
        n = rows * W
        if jitter:
            _adjust(planes, at, plane, n, row, order, done, 4, mean, sums, NOWHERE, after)
        if solarize_first:
            _solarize(planes, at, plane, 3, n, threshold)
        if is_gray:
            _to_gray(planes, at, plane, n)
        if R > 0:
            for c in range(channels):
                finish.blur_rows(planes, at + c * plane, rows, W, gaussian, R, shape[MARGIN], padded)
            continue
        if solarize_last:
            _solarize(planes, at, plane, channels, n, threshold)
        finish.emit(planes, at, second, n, scale, bias, floats, halves, shape[KIND], shape[CHANNELS],
                    switches[STREAMING], target + shape[CHANNELS] * y * W, spare)  # fmt: skip
    if switches[WANT_SHIFT]:
        for c in range(3):
            shift[c] = (sums[BEFORE_JITTER + c] - sums[AFTER_JITTER + c]) / size

    # Stage C.
    if R > 0:
        for c in range(channels):
            finish.reflect_rows(planes, start + c * plane, H, W, R)
        second, first = 0 if is_gray else shape[STRIP_PLANE], np.int64(0)
        for y in range(0, H, STRIP):
            n = min(STRIP, H - y) * W
            for c in range(channels):
                finish.blur_columns(planes, start + c * plane + y * W, W, gaussian, R, strips, c * shape[STRIP_PLANE])
            if solarize_last:
                _solarize(strips, first, shape[STRIP_PLANE], channels, n, threshold)
            finish.emit(strips, first, second, n, scale, bias, floats, halves, shape[KIND], shape[CHANNELS],
                        switches[STREAMING], target + shape[CHANNELS] * y * W, spare)  # fmt: skip


SIGNATURE = (
    "void(int64, int64, uint8[::1], int64[::1], int64[::1], float32[::1], float32[::1], uint16[::1], float32[::1], "
    "int64[::1], boolean[::1], float32[::1], float32[::1], "
    "int64[::1], float32[::1], int64[::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], "
    "float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], float64[::1])"
)


def make_kernel(sources: int, *, keep: bool) -> Any:
    """The function over items first..last of a batch; see compiled.Make."""

    @njit(cache=keep, nogil=True)
    def augment_items(
        first, last, pixels, offsets, strides, params, floats, halves, shift, shape, switches, scale, bias,
        rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block, planes, strips, padded,
        gaussian, spare, sums,
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
                n * shape[CHANNELS] * shape[OUT_H] * shape[OUT_W], shift[3 * n : 3 * n + 3], shape, switches, scale,
                bias, rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block, planes,
                strips, padded, gaussian, spare, sums,
            )  # fmt: skip
        if switches[STREAMING]:
            fence()

    return augment_items
