"""First of two launches for large outputs: source bytes to a resized planar image and the sums that colour needs.

A program marches down the source under a tile of the output and weighs the columns of each source row once. Where the
image shrinks, the triangles of neighbouring output rows end in each other's centres: a source row counts for the two
output rows between whose centres it lies and for no other. So two rows of sums are enough, that of the output row which
is complete next and that of the one after it. Where the image does not shrink they are two source rows, between which
the output rows lie.
"""

import triton
import triton.language as tl

from .color import color_steps, contrast_position, load_color, luma
from .columns import P
from .gather import axis, byte, first_tap, load_geometry, rounded_product, triangle


@triton.jit
def _columns(x, length, reverse, OW: tl.constexpr, ANTIALIAS: tl.constexpr):
    """For each output column: its first source column, and the signed distance of that one from its centre.

    Then, the same for all columns, the reciprocal of the filter's reach and the number of taps, and at the end the
    reciprocal of the sum of each column's weights.
    """
    scale, centre = axis(x, OW, length, reverse)
    reach = 1.0
    if ANTIALIAS:
        reach = tl.maximum(scale, 1.0)
    inverse = 1.0 / reach
    taps = tl.minimum(tl.ceil(2.0 * reach), length)
    start = first_tap(centre - reach + 0.5, length, taps)
    distance = start - centre + 0.5
    count = taps.to(tl.int32)
    total = triangle(distance, inverse)
    for i in range(1, count):
        total += triangle(distance + i, inverse)
    return start.to(tl.int32), distance, inverse, count, 1.0 / total


@triton.jit
def _add_tap(r, g, b, w, p, PTX: tl.constexpr):
    return r + w * byte(p, PTX), g + w * byte(p + 1, PTX), b + w * byte(p + 2, PTX)


@triton.jit
def _source_row(p, columns, w0, w1, w2, w3, step, PTX: tl.constexpr):
    """Red, green and blue of a source row, each the weighted sum of a column's taps, not yet divided by their sum.

    Up to four taps that are 3 bytes apart have their weights in registers and constant offsets.
    """
    _, distance, inverse, taps, _ = columns
    fixed = tl.where(step == 3, tl.minimum(taps, 4), 1)
    r = w0 * byte(p, PTX)
    g = w0 * byte(p + 1, PTX)
    b = w0 * byte(p + 2, PTX)
    if fixed >= 2:
        r, g, b = _add_tap(r, g, b, w1, p + 3, PTX)
    if fixed >= 3:
        r, g, b = _add_tap(r, g, b, w2, p + 6, PTX)
    if fixed >= 4:
        r, g, b = _add_tap(r, g, b, w3, p + 9, PTX)
    for i in range(fixed, taps):
        r, g, b = _add_tap(r, g, b, triangle(distance + i, inverse), p + i * step, PTX)
    return r, g, b


@triton.jit
def _store_row(
    p, r, g, b, inside, first, contrast, order, factors, sum_luma, sum_r, sum_g, sum_b,
    PLANE: tl.constexpr, ROUND: tl.constexpr, HSV: tl.constexpr, SHIFT: tl.constexpr, ALL_INSIDE: tl.constexpr,
):  # fmt: skip
    """Rounds and stores a row of the output, and adds it to the sums."""
    dtype = p.dtype.element_ty
    if ROUND:
        # Through integers: they are what is stored, and come back faster than a float's floor.
        r_int = (r + 0.5).to(tl.int32)
        g_int = (g + 0.5).to(tl.int32)
        b_int = (b + 0.5).to(tl.int32)
        tl.store(p, r_int.to(dtype), mask=inside)
        tl.store(p + PLANE, g_int.to(dtype), mask=inside)
        tl.store(p + 2 * PLANE, b_int.to(dtype), mask=inside)
        r = r_int.to(tl.float32)
        g = g_int.to(tl.float32)
        b = b_int.to(tl.float32)
    r *= 1.0 / 255
    g *= 1.0 / 255
    b *= 1.0 / 255
    if not ROUND:
        tl.store(p, r, mask=inside)
        tl.store(p + PLANE, g, mask=inside)
        tl.store(p + 2 * PLANE, b, mask=inside)
    if first == 0:
        if not ALL_INSIDE:
            r = tl.where(inside, r, 0.0)
            g = tl.where(inside, g, 0.0)
            b = tl.where(inside, b, 0.0)
        if SHIFT:
            sum_r += r
            sum_g += g
            sum_b += b
        # Black stays black through brightness, saturation and hue, so what is outside adds nothing.
        r, g, b = color_steps(r, g, b, 0, contrast, order, factors, 0.0, HSV)
        sum_luma += luma(r, g, b)
    return sum_luma, sum_r, sum_g, sum_b


@triton.jit(do_not_specialize=["B", "VB"])
def resize_kernel(
    p_pixels,  # uint8, all images
    p_offsets,  # int64 [B], first byte of each image
    p_strides,  # int32 [B], bytes per image row
    p_params,  # float32 [V * B, P]
    p_scratch,  # uint8 in 0..255 or float32 in [0, 1], [V * B, 3, OH, OW]: the resized images
    p_sums,  # float32 [4 or 1, V * B, TILES]: luma where contrast takes its mean, then red, green, blue before jitter
    B,
    VB,
    OH: tl.constexpr,
    OW: tl.constexpr,
    RB: tl.constexpr,  # rows of a tile, one after the other
    CB: tl.constexpr,  # columns of a tile, side by side; what belongs to a row is found once for those of a thread
    TILES: tl.constexpr,  # tiles of a view; a program does one
    ROUND: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    PTX: tl.constexpr,  # whether PTX can be inlined: for NVIDIA, and not in the interpreter
    HSV: tl.constexpr,  # whether the jitter's saturation is that of HSV
    SHIFT: tl.constexpr,  # whether to sum red, green and blue too
):
    vb = tl.program_id(0) // TILES
    tile = tl.program_id(0) % TILES
    ACROSS: tl.constexpr = (OW + CB - 1) // CB
    PLANE: tl.constexpr = OH * OW
    ALL_INSIDE: tl.constexpr = OW % CB == 0
    p_row = p_params + vb.to(tl.int64) * P
    p_view = p_scratch + vb.to(tl.int64) * (3 * PLANE)
    p_crop, length_y, length_x, step_y, step_x, reverse_y, reverse_x = load_geometry(
        p_pixels, p_offsets, p_strides, vb % B, p_row
    )
    first, _last, order, factors = load_color(p_row)
    contrast = contrast_position(order)

    x = (tile % ACROSS) * CB + tl.arange(0, CB)
    inside = x < OW
    columns = _columns(tl.minimum(x, OW - 1), length_x, reverse_x, OW, ANTIALIAS)
    start, distance, inverse_x, _taps, norm_x = columns
    w0 = triangle(distance, inverse_x)
    w1 = triangle(distance + 1, inverse_x)
    w2 = triangle(distance + 2, inverse_x)
    w3 = triangle(distance + 3, inverse_x)
    p_first = p_crop + start * step_x
    # The lie about contiguity gives each lane a column of its own. A warp then gathers along a row of the source, one
    # or two cache lines at a time, and not from four times as many for the sake of wider stores.
    p_column = p_view + tl.max_contiguous(x, 1)

    scale_y = rounded_product(length_y, 1.0 / OH)
    begin = (tile // ACROSS) * RB
    end = tl.minimum(begin + RB, OH)
    centre = rounded_product(scale_y, begin + 0.5)
    zero = tl.zeros((CB,), tl.float32)
    r = zero
    g = zero
    b = zero
    r_next = zero
    g_next = zero
    b_next = zero
    sum_luma = zero
    sum_r = zero
    sum_g = zero
    sum_b = zero
    # Output rows in the direction of the source.
    if ANTIALIAS & (scale_y > 1.0):
        inverse_y = 1.0 / scale_y
        row = tl.maximum(tl.floor(centre - scale_y + 0.5), 0.0).to(tl.int32)
        weight = 0.0
        weight_next = 0.0
        for o in range(begin, end):
            centre_next = rounded_product(scale_y, o + 1.5)
            stop = tl.minimum((centre + scale_y + 0.5).to(tl.int32), length_y.to(tl.int32))
            for j in range(row, stop):
                x_r, x_g, x_b = _source_row(p_first + j * step_y, columns, w0, w1, w2, w3, step_x, PTX)
                w = triangle(j - centre + 0.5, inverse_y)
                w_next = triangle(j - centre_next + 0.5, inverse_y)
                weight += w
                weight_next += w_next
                r += w * x_r
                g += w * x_g
                b += w * x_b
                r_next += w_next * x_r
                g_next += w_next * x_g
                b_next += w_next * x_b
            norm = norm_x * (1.0 / weight)
            y = tl.where(reverse_y, OH - 1 - o, o)
            sum_luma, sum_r, sum_g, sum_b = _store_row(
                p_column + y * OW, r * norm, g * norm, b * norm, inside, first, contrast, order, factors,
                sum_luma, sum_r, sum_g, sum_b, PLANE, ROUND, HSV, SHIFT, ALL_INSIDE,
            )  # fmt: skip
            row = stop
            centre = centre_next
            r = r_next
            g = g_next
            b = b_next
            weight = weight_next
            r_next = zero
            g_next = zero
            b_next = zero
            weight_next = 0.0
    else:
        row = tl.zeros((), tl.int32)
        for o in range(begin, end):
            top = first_tap(centre - 0.5, length_y, 2.0)
            stop = tl.minimum(top.to(tl.int32) + 2, length_y.to(tl.int32))
            for j in range(tl.maximum(row, top.to(tl.int32)), stop):
                r = r_next
                g = g_next
                b = b_next
                r_next, g_next, b_next = _source_row(p_first + j * step_y, columns, w0, w1, w2, w3, step_x, PTX)
            # The only row of an image of one row has become the second of two.
            below = tl.where(length_y == 1.0, 1.0, tl.minimum(tl.maximum(centre - 0.5 - top, 0.0), 1.0))
            w_next = norm_x * below
            w = norm_x - w_next
            y = tl.where(reverse_y, OH - 1 - o, o)
            sum_luma, sum_r, sum_g, sum_b = _store_row(
                p_column + y * OW, w * r + w_next * r_next, w * g + w_next * g_next, w * b + w_next * b_next,
                inside, first, contrast, order, factors,
                sum_luma, sum_r, sum_g, sum_b, PLANE, ROUND, HSV, SHIFT, ALL_INSIDE,
            )  # fmt: skip
            row = stop
            centre = rounded_product(scale_y, o + 1.5)

    if first == 0:
        p_sum = p_sums + vb.to(tl.int64) * TILES + tile
        tl.store(p_sum, tl.sum(sum_luma))
        if SHIFT:
            plane = VB.to(tl.int64) * TILES
            tl.store(p_sum + plane, tl.sum(sum_r))
            tl.store(p_sum + 2 * plane, tl.sum(sum_g))
            tl.store(p_sum + 3 * plane, tl.sum(sum_b))
