"""Second of two launches for large outputs: colour, blur, normalise, cast and store."""

import triton
import triton.language as tl

from .blur import band, blur_radius, gaussian, reflect, reflected_band
from .color import after_blur, before_gray, color_steps, load_color, load_points
from .columns import SIGMA, P
from .store import store_rgb


@triton.jit
def _fractions(byte, PTX: tl.constexpr):
    """Bytes as float32 in [0, 1].

    In PTX a byte becomes the second lowest of 2**15, so that one multiply-add converts it: the same value, rounded
    once, for two instructions instead of three.
    """
    if PTX:
        value = tl.inline_asm_elementwise(
            """
            prmt.b32 $0, $4, 0x47000000, 0x7404;
            prmt.b32 $1, $4, 0x47000000, 0x7414;
            prmt.b32 $2, $4, 0x47000000, 0x7424;
            prmt.b32 $3, $4, 0x47000000, 0x7434;
            fma.rn.f32 $0, $0, 0f3B808081, 0fC3008081;
            fma.rn.f32 $1, $1, 0f3B808081, 0fC3008081;
            fma.rn.f32 $2, $2, 0f3B808081, 0fC3008081;
            fma.rn.f32 $3, $3, 0f3B808081, 0fC3008081;
            """,
            "=&f,=&f,=&f,=&f,r",
            [byte],
            dtype=tl.float32,
            is_pure=True,
            pack=4,
        )
    else:
        value = byte.to(tl.float32) * (1.0 / 255)
    return value


@triton.jit
def _load(p, inside, PLANE: tl.constexpr, ROUND: tl.constexpr, ALL_INSIDE: tl.constexpr, PTX: tl.constexpr):
    if ALL_INSIDE:
        r = tl.load(p)
        g = tl.load(p + PLANE)
        b = tl.load(p + 2 * PLANE)
    else:
        r = tl.load(p, mask=inside, other=0)
        g = tl.load(p + PLANE, mask=inside, other=0)
        b = tl.load(p + 2 * PLANE, mask=inside, other=0)
    if ROUND:
        r = _fractions(r, PTX)
        g = _fractions(g, PTX)
        b = _fractions(b, PTX)
    return r, g, b


@triton.jit
def _by_thread(x, inside, RB: tl.constexpr, CB: tl.constexpr, ALL_INSIDE: tl.constexpr):
    """Sums of eight neighbours in a row, which one thread holds, so that a running sum is one register."""
    if not ALL_INSIDE:
        x = tl.where(inside, x, 0.0)
    return tl.sum(tl.reshape(x, (RB, CB // 8, 8)), 2)


@triton.jit(do_not_specialize=["VB"])
def finish_kernel(
    p_scratch,  # uint8 in 0..255 or float32 in [0, 1], [V * B, 3, OH, OW]
    p_params,  # float32 [V * B, P]
    p_sums,  # float32 [V * B, TILES]: luma where contrast takes its mean
    p_after,  # float32 [3, V * B, STRIPS]: red, green, blue after jitter, if SHIFT
    p_out,  # float16, bfloat16 or float32 [V * B, OH, OW, CHANNELS]
    scale_r,
    scale_g,
    scale_b,
    bias_r,
    bias_g,
    bias_b,
    VB,
    OH: tl.constexpr,
    OW: tl.constexpr,
    RB: tl.constexpr,  # rows of a strip, halo included
    CB: tl.constexpr,  # columns of a block, at least RADIUS
    CHANNELS: tl.constexpr,  # channels of the output: 3, or 4 with a last one of zeros
    RADIUS: tl.constexpr,  # radius of the blur, 0 = none
    STRIPS: tl.constexpr,  # programs of a view
    TILES: tl.constexpr,
    TILES2: tl.constexpr,  # TILES rounded up to a power of 2
    ROUND: tl.constexpr,
    BEFORE_GRAY: tl.constexpr,  # see color_constants
    HSV: tl.constexpr,  # whether the jitter's saturation is that of HSV
    SHIFT: tl.constexpr,
    DOT: tl.constexpr,  # dtype of the blur's products
    PRECISION: tl.constexpr,  # how float32 ones are taken
    PTX: tl.constexpr,  # whether PTX can be inlined: for NVIDIA, and not in the interpreter
):
    """A program takes a strip of a blurred view, or every STRIPS-th run of RB * CB pixels of one that is not.

    A strip is RB rows, of which the inner RB - 2 * radius are complete. It marches over column blocks and keeps the
    two blocks to its left in registers, so a horizontal product sees three neighbouring blocks.
    """
    # Backwards: the views that the launch before wrote last are still in the L2 cache.
    vb = VB - 1 - tl.program_id(0) // STRIPS
    strip = tl.program_id(0) % STRIPS
    PLANE: tl.constexpr = OH * OW
    p_row = p_params + vb.to(tl.int64) * P
    p_image = p_scratch + vb.to(tl.int64) * (3 * PLANE)
    p_view = p_out + vb.to(tl.int64) * (CHANNELS * PLANE)
    sigma = tl.load(p_row + SIGMA)
    points = load_points(p_row)
    first_step, last_step, order, factors = load_color(p_row)
    # Whether something happens between jitter and gray, or gray is another operation than the jitter's saturation, so
    # that they are two calls of color_steps.
    APART: tl.constexpr = SHIFT or BEFORE_GRAY or HSV
    split = 4 if APART else last_step
    mean = 0.0
    if first_step == 0:
        tile = tl.arange(0, TILES2)
        p_sum = p_sums + vb.to(tl.int64) * TILES
        mean = tl.sum(tl.load(p_sum + tile, mask=tile < TILES, other=0.0)) * (1.0 / PLANE)
    row = tl.arange(0, RB)
    column = tl.arange(0, CB)
    sum_r = tl.zeros((RB, CB // 8), tl.float32)
    sum_g = tl.zeros((RB, CB // 8), tl.float32)
    sum_b = tl.zeros((RB, CB // 8), tl.float32)

    if (RADIUS == 0) | (sigma <= 0.0):
        RUN: tl.constexpr = RB * CB
        RUNS: tl.constexpr = (PLANE + RUN - 1) // RUN
        for run in range(strip, RUNS, STRIPS):
            first = run * RUN + row * CB
            pixel = first[:, None] + column[None, :]
            inside = pixel < PLANE
            r, g, b = _load(p_image + pixel, inside, PLANE, ROUND, PLANE % RUN == 0, PTX)
            r, g, b = color_steps(r, g, b, first_step, split, order, factors, mean, HSV)
            if SHIFT:
                sum_r += _by_thread(r, inside, RB, CB, PLANE % RUN == 0)
                sum_g += _by_thread(g, inside, RB, CB, PLANE % RUN == 0)
                sum_b += _by_thread(b, inside, RB, CB, PLANE % RUN == 0)
            if BEFORE_GRAY:
                r, g, b = before_gray(r, g, b, points, BEFORE_GRAY)
            if APART:
                r, g, b = color_steps(r, g, b, 4, last_step, order, factors, mean, False)
            r, g, b = after_blur(r, g, b, points, BEFORE_GRAY)
            store_rgb(
                p_view, first, PLANE - first, r, g, b, scale_r, scale_g, scale_b, bias_r, bias_g, bias_b,
                RB, CB, CHANNELS, (PLANE % 8 == 0) & (CB % 8 == 0),
            )  # fmt: skip
    else:
        if RADIUS > 0:
            radius = blur_radius(sigma, RADIUS)
            kernel = gaussian(sigma, radius)
            y = strip * (RB - 2 * radius) + row - radius
            complete = (row >= radius) & (row < RB - radius) & (y < OH)
            if strip * (RB - 2 * radius) < OH:
                BLOCKS: tl.constexpr = (OW + CB - 1) // CB
                y_in = reflect(y, OH)
                row_f = row.to(tl.float32)
                column_f = column.to(tl.float32)
                vertical = band(row_f, row_f, kernel).to(DOT)
                inner_l = band(column_f - CB, column_f, kernel).to(DOT)
                inner_m = band(column_f, column_f, kernel).to(DOT)
                inner_r = band(column_f + CB, column_f, kernel).to(DOT)
                nothing = tl.zeros((RB, CB), DOT)
                r_l = nothing
                g_l = nothing
                b_l = nothing
                r_m = nothing
                g_m = nothing
                b_m = nothing
                for block in range(0, BLOCKS + 1):
                    r_r = nothing
                    g_r = nothing
                    b_r = nothing
                    if block < BLOCKS:
                        x = block * CB + column
                        inside = (x < OW)[None, :] & (row >= 0)[:, None]
                        p = p_image + (y_in[:, None] * OW + x[None, :])
                        r, g, b = _load(p, inside, PLANE, ROUND, OW % CB == 0, PTX)
                        r, g, b = color_steps(r, g, b, first_step, split, order, factors, mean, HSV)
                        if SHIFT:
                            sum_r += _by_thread(r, inside, RB, CB, OW % CB == 0)
                            sum_g += _by_thread(g, inside, RB, CB, OW % CB == 0)
                            sum_b += _by_thread(b, inside, RB, CB, OW % CB == 0)
                        if BEFORE_GRAY:
                            r, g, b = before_gray(r, g, b, points, BEFORE_GRAY)
                        if APART:
                            r, g, b = color_steps(r, g, b, 4, last_step, order, factors, mean, False)
                        r_r = tl.dot(vertical, r.to(DOT), input_precision=PRECISION).to(DOT)
                        g_r = tl.dot(vertical, g.to(DOT), input_precision=PRECISION).to(DOT)
                        b_r = tl.dot(vertical, b.to(DOT), input_precision=PRECISION).to(DOT)
                    if block >= 1:
                        w_l = inner_l
                        w_m = inner_m
                        w_r = inner_r
                        if (block == 1) | (block >= BLOCKS - 1):
                            o = (block - 1) * CB + column_f
                            w_l = reflected_band(o - CB, o, kernel, OW).to(DOT)
                            w_m = reflected_band(o, o, kernel, OW).to(DOT)
                            w_r = reflected_band(o + CB, o, kernel, OW).to(DOT)
                        r = tl.dot(r_l, w_l, input_precision=PRECISION)
                        g = tl.dot(g_l, w_l, input_precision=PRECISION)
                        b = tl.dot(b_l, w_l, input_precision=PRECISION)
                        r = tl.dot(r_m, w_m, r, input_precision=PRECISION)
                        g = tl.dot(g_m, w_m, g, input_precision=PRECISION)
                        b = tl.dot(b_m, w_m, b, input_precision=PRECISION)
                        r = tl.dot(r_r, w_r, r, input_precision=PRECISION)
                        g = tl.dot(g_r, w_r, g, input_precision=PRECISION)
                        b = tl.dot(b_r, w_r, b, input_precision=PRECISION)
                        r, g, b = after_blur(r, g, b, points, BEFORE_GRAY)
                        first_x = (block - 1) * CB
                        count = tl.where(complete, OW - first_x, 0)
                        store_rgb(
                            p_view, y * OW + first_x, count, r, g, b,
                            scale_r, scale_g, scale_b, bias_r, bias_g, bias_b,
                            RB, CB, CHANNELS, (OW % 8 == 0) & (CB % 8 == 0),
                        )  # fmt: skip
                    r_l = r_m
                    g_l = g_m
                    b_l = b_m
                    r_m = r_r
                    g_m = g_r
                    b_m = b_r
            sum_r = tl.where(complete[:, None], sum_r, 0.0)
            sum_g = tl.where(complete[:, None], sum_g, 0.0)
            sum_b = tl.where(complete[:, None], sum_b, 0.0)

    if SHIFT:
        p = p_after + vb.to(tl.int64) * STRIPS + strip
        plane = VB.to(tl.int64) * STRIPS
        tl.store(p, tl.sum(sum_r))
        tl.store(p + plane, tl.sum(sum_g))
        tl.store(p + 2 * plane, tl.sum(sum_b))
