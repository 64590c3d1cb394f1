"""The last operations of a view: colour, blur, normalise, cast and store.

Stage B applies the rest of the colour operations, strip by strip, and stores or, where the view is blurred, blurs along
rows. Stage C blurs along columns and stores.

Shape suffixes: H W of the output.
"""

import numpy as np
from numba import njit

from ..params import GRAY, SIGMA
from . import color
from .arguments import (
    BLUR_KERNEL,
    CHANNELS,
    KIND,
    MARGIN,
    OUT_H,
    OUT_W,
    PLANE,
    STREAMING,
    STRIP_PLANE,
    STRIP_ROWS,
    TOP_ROWS,
    WANT_SHIFT,
)
from .blur import blur_columns, blur_rows, fill_gaussian, reflect_rows
from .color import AFTER_JITTER, BEFORE_JITTER, NOWHERE
from .flags import EXACT
from .resize import STRIP
from .simd import keep_apart
from .store import store_pixels


@njit(**EXACT)
def finish_view(row, jitter, order, done, mean, planes, strips, padded, gaussian, spare, sums, floats, halves, target,
                shift, shape, switches, options, scale, bias):  # fmt: skip
    """Finishes the view in `planes`, from position `done` of the jitter's order on.

    mean: the mean luma that the contrast blends with. target: first element of the view in the output.
    """
    keep_apart()
    H, W, plane, strip_rows = shape[OUT_H], shape[OUT_W], shape[PLANE], shape[STRIP_ROWS]
    start, size = shape[TOP_ROWS] * W, H * W  # of the image within each plane
    is_gray, sigma = row[GRAY] > 0.5, row[SIGMA]
    R = fill_gaussian(options[BLUR_KERNEL], sigma, gaussian) if sigma > 0 else 0
    channels = 1 if is_gray else 3
    after = AFTER_JITTER if switches[WANT_SHIFT] else NOWHERE
    second = 0 if is_gray else plane
    for y in range(0, H, strip_rows):
        rows, at = min(strip_rows, H - y), start + y * W
        n = rows * W
        if jitter:
            color.jitter(planes, at, plane, n, row, order, done, 4, mean, sums, NOWHERE, after, options)
        color.before_gray(planes, at, plane, n, row, options)
        if is_gray:
            color.to_gray(planes, at, plane, n)
        if R > 0:
            for c in range(channels):
                blur_rows(planes, at + c * plane, rows, W, gaussian, R, shape[MARGIN], padded)
            continue
        color.after_blur(planes, at, plane, channels, n, row, options)
        store_pixels(planes, at, second, n, scale, bias, floats, halves, shape[KIND], shape[CHANNELS],
                     switches[STREAMING], target + shape[CHANNELS] * y * W, spare)  # fmt: skip
    if switches[WANT_SHIFT]:
        for c in range(3):
            shift[c] = (sums[BEFORE_JITTER + c] - sums[AFTER_JITTER + c]) / size

    # Stage C.
    if R > 0:
        for c in range(channels):
            reflect_rows(planes, start + c * plane, H, W, R)
        second, first = 0 if is_gray else shape[STRIP_PLANE], np.int64(0)
        for y in range(0, H, STRIP):
            n = min(STRIP, H - y) * W
            for c in range(channels):
                blur_columns(planes, start + c * plane + y * W, W, gaussian, R, strips, c * shape[STRIP_PLANE])
            color.after_blur(strips, first, shape[STRIP_PLANE], channels, n, row, options)
            store_pixels(strips, first, second, n, scale, bias, floats, halves, shape[KIND], shape[CHANNELS],
                         switches[STREAMING], target + shape[CHANNELS] * y * W, spare)  # fmt: skip
