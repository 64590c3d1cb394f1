"""The kernel: views first..last of a batch, one after the other, on one thread.

A view is made in three stages. Stage A, here, resizes strips of rows into float planes and applies the jitter
operations that come before the contrast, which needs the mean luma of their result. Stages B and C are in finish.py.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns.
"""

from typing import Any

import numpy as np
from numba import njit

from ..params import FLIP, HEIGHT, JITTER, LEFT, ORDER, ROTATION, TOP, WIDTH, P
from . import color
from .arguments import (
    ANTIALIAS,
    BATCH,
    CHANNELS,
    OUT_H,
    OUT_W,
    PLANE,
    ROUNDING,
    STREAMING,
    STRIP_ROWS,
    TOP_ROWS,
    VIEWS,
    WANT_SHIFT,
)
from .color import AFTER_JITTER, BEFORE_CONTRAST, BEFORE_JITTER, NOWHERE
from .finish import finish_view
from .flags import EXACT
from .resize import STRIP, columns_of_group, fill_taps, prefetch_strip, resize_strip
from .simd import fence, keep_apart


@njit(**EXACT)
def _stage_a(pixels, image, stride, row, planes, start, plane, H, W, strip_rows, switches, options, order, contrast,
             sums, rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block):  # fmt: skip
    """Crop, resize, rotation, flip, and the jitter operations at positions 0..contrast, none when that is -1."""
    keep_apart()
    # A rotation by 180 degrees and a flip reverse the taps; by 90 degrees, the planes are written transposed.
    turns, flip = int(row[ROTATION]) % 4, row[FLIP] > 0.5
    transposed, rounding = turns % 2 == 1, options[ROUNDING] != 0
    reverse_rows = (flip if turns == 1 else not flip) if transposed else turns == 2
    reverse_columns = turns == 1 if transposed else (turns == 2) != flip
    rows_out, columns_out = (W, H) if transposed else (H, W)
    rows_first = rows_first[: -(-rows_out // STRIP) * STRIP]
    columns_first = columns_first[: -(-columns_out // STRIP) * STRIP]
    height, width = int(row[HEIGHT]), int(row[WIDTH])
    origin = image + int(row[TOP]) * stride + int(row[LEFT]) * 3
    one = np.float32(1)
    unit = one if rounding else np.float32(1 / 255)
    antialias = options[ANTIALIAS] != 0
    rows_K = fill_taps(height, rows_out, antialias, reverse_rows, unit, rows_first, rows_weights)
    prefetch_strip(pixels, origin, stride, width, rows_first, rows_K, rows_out)
    columns_K = fill_taps(width, columns_out, antialias, reverse_columns, one, columns_first, columns_weights)
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
            color.jitter(planes, start + done * W, plane, n, row, order, 0, contrast, one, sums, before, after, options)
            done = ready


@njit(**EXACT)
def augment_view(pixels, image, stride, row, floats, halves, target, shift, shape, switches, options, scale, bias,
                 rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block, planes, strips,
                 padded, gaussian, spare, sums):  # fmt: skip
    """Augments the image at byte `image` by a parameter row, into the output from its element `target` on."""
    keep_apart()
    H, W, plane, strip_rows = shape[OUT_H], shape[OUT_W], shape[PLANE], shape[STRIP_ROWS]
    start, size = shape[TOP_ROWS] * W, H * W  # of the image within each plane
    jitter, order = row[JITTER] > 0.5, int(row[ORDER])
    for i in range(sums.size):
        sums[i] = 0
    mean = np.float32(0)
    done = color.next_contrast(order, 0) if jitter else 4
    _stage_a(pixels, image, stride, row, planes, start, plane, H, W, strip_rows, switches, options, order,
             done if jitter else -1, sums, rows_first, rows_weights, columns_first, columns_weights, mixed, columns,
             tile, block)  # fmt: skip
    while done < 4:
        mean = color.luma(sums, BEFORE_CONTRAST, size)
        following = color.next_contrast(order, done + 1)
        if following == 4:
            break
        # Only for an order that is no permutation and names the contrast again.
        for i in range(BEFORE_CONTRAST, AFTER_JITTER):
            sums[i] = 0
        color.jitter(planes, start, plane, size, row, order, done, following, mean, sums, NOWHERE, BEFORE_CONTRAST,
                     options)  # fmt: skip
        done = following

    finish_view(row, jitter, order, done, mean, planes, strips, padded, gaussian, spare, sums, floats, halves, target,
                shift, shape, switches, options, scale, bias)  # fmt: skip


SIGNATURE = (
    "void(int64, int64, uint8[::1], int64[::1], int64[::1], float32[::1], float32[::1], uint16[::1], float32[::1], "
    "int64[::1], boolean[::1], int64[::1], float32[::1], float32[::1], "
    "int64[::1], float32[::1], int64[::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], "
    "float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], float64[::1])"
)


def make_kernel(sources: int, *, keep: bool) -> Any:
    """The function over items first..last of a batch; see compiled.Make."""

    @njit(cache=keep, nogil=True)
    def augment_items(
        first, last, pixels, offsets, strides, params, floats, halves, shift, shape, switches, options, scale, bias,
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
                n * shape[CHANNELS] * shape[OUT_H] * shape[OUT_W], shift[3 * n : 3 * n + 3], shape, switches, options,
                scale, bias, rows_first, rows_weights, columns_first, columns_weights, mixed, columns, tile, block,
                planes, strips, padded, gaussian, spare, sums,
            )  # fmt: skip
        if switches[STREAMING]:
            fence()

    return augment_items
