"""Crop, resize, rotate and flip as one gather: output pixels to weighted bytes of the source.

A quarter turn swaps which source axis the rows and the columns of the output run along, and a turn or a flip reverses
one. Rows and columns therefore each get a length, a byte step and a direction, and rotation and flip cost nothing per
pixel.
"""

import triton
import triton.language as tl

from .columns import FLIP, HEIGHT, LEFT, ROTATION, TOP, WIDTH


@triton.jit
def rounded_product(a, b):
    """a * b as float32, rounded once: left in float32, the compiler would fuse it with the addition that follows."""
    return (a.to(tl.float64) * b).to(tl.float32)


@triton.jit
def axis(o, N: tl.constexpr, length, reverse):
    """Scale, and where the centres of output positions `o` of N lie along a source axis of `length` pixels.

    Rounded as torch's CPU kernel rounds, once for the scale and once for the product: at coordinate 300 an ulp is 3e-5
    of a pixel, which a contrasty photo turns into more than the 1e-5 that the oracle allows. The reciprocal in double
    gives the quotient of whole numbers below 2**17 correctly rounded, without a division.
    """
    scale = rounded_product(length, 1.0 / N)
    o = tl.where(reverse, N - 1 - o, o)
    return scale, rounded_product(scale, o.to(tl.float64) + 0.5)


@triton.jit
def byte(p, PTX: tl.constexpr):
    """Loads bytes as float32.

    Left to itself the compiler converts 16-bit integers, at an eighth of the rate at which 32-bit ones convert.
    """
    byte = tl.load(p)
    if PTX:
        value = tl.inline_asm_elementwise(
            "cvt.rn.f32.u32 $0, $1;", "=f,r", [byte.to(tl.uint32)], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        value = byte.to(tl.float32)
    return value


@triton.jit
def first_tap(position, length, taps):
    """First of `taps` source pixels around `position`, moved so that all of them lie in 0..length-1.

    Those that count stay among them: where the window moves, the taps that it loses lie outside.
    """
    return tl.maximum(tl.minimum(tl.floor(position), length - taps), 0.0)


@triton.jit
def triangle(distance, inverse):
    return tl.minimum(tl.maximum(1.0 - tl.abs(distance) * inverse, 0.0), 1.0)


@triton.jit
def load_geometry(p_pixels, p_offsets, p_strides, b, p_row):
    """What `gather` needs to know about image `b` and a row: pointer to the crop, its sizes, steps and directions.

    Sizes and byte steps are those along the rows of the output, then along its columns.
    """
    stride = tl.load(p_strides + b)
    height = tl.load(p_row + HEIGHT)
    width = tl.load(p_row + WIDTH)
    turns = tl.load(p_row + ROTATION).to(tl.int32)
    sideways = (turns & 1) == 1
    corner = tl.load(p_row + TOP).to(tl.int64) * stride + tl.load(p_row + LEFT).to(tl.int64) * 3
    p_crop = p_pixels + tl.load(p_offsets + b) + corner
    reverse_y = (turns == 1) | (turns == 2)
    reverse_x = (turns >= 2) != (tl.load(p_row + FLIP) > 0.5)
    length_y = tl.where(sideways, width, height)
    length_x = tl.where(sideways, height, width)
    step_y = tl.where(sideways, 3, stride)
    step_x = tl.where(sideways, stride, 3)
    return p_crop, length_y, length_x, step_y, step_x, reverse_y, reverse_x


@triton.jit
def gather(
    geometry,
    y,  # int32 [RB], output rows
    x,  # int32 [CB], output columns
    OH: tl.constexpr,
    OW: tl.constexpr,
    RB: tl.constexpr,
    CB: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    PTX: tl.constexpr,
):
    """Red, green and blue of the tile y x x, each float32 [RB, CB] in 0..255."""
    p_crop, length_y, length_x, step_y, step_x, reverse_y, reverse_x = geometry
    scale_y, centre_y = axis(y, OH, length_y, reverse_y)
    scale_x, centre_x = axis(x, OW, length_x, reverse_x)
    reach_y = 1.0
    reach_x = 1.0
    if ANTIALIAS:
        reach_y = tl.maximum(scale_y, 1.0)
        reach_x = tl.maximum(scale_x, 1.0)

    if (reach_y + reach_x == 2.0) & (step_x == 3) & (tl.minimum(length_y, length_x) >= 2.0):
        # Upright and not shrunk, two taps each way: their offsets are constants of the instructions.
        y0 = first_tap(centre_y - 0.5, length_y, 2.0)
        x0 = first_tap(centre_x - 0.5, length_x, 2.0)
        wy = tl.minimum(tl.maximum(centre_y - 0.5 - y0, 0.0), 1.0)[:, None]
        wx = tl.minimum(tl.maximum(centre_x - 0.5 - x0, 0.0), 1.0)[None, :]
        p = p_crop + ((y0.to(tl.int32) * step_y)[:, None] + (x0.to(tl.int32) * 3)[None, :])
        q = p + step_y
        w11 = wy * wx
        w10 = wy - w11
        w01 = wx - w11
        w00 = 1.0 - wy - w01
        r = w00 * byte(p, PTX) + w01 * byte(p + 3, PTX) + w10 * byte(q, PTX) + w11 * byte(q + 3, PTX)
        g = w00 * byte(p + 1, PTX) + w01 * byte(p + 4, PTX) + w10 * byte(q + 1, PTX) + w11 * byte(q + 4, PTX)
        b = w00 * byte(p + 2, PTX) + w01 * byte(p + 5, PTX) + w10 * byte(q + 2, PTX) + w11 * byte(q + 5, PTX)
    else:
        inverse_y = 1.0 / reach_y
        inverse_x = 1.0 / reach_x
        taps_y = tl.minimum(tl.ceil(2.0 * reach_y), length_y)
        taps_x = tl.minimum(tl.ceil(2.0 * reach_x), length_x)
        y0 = first_tap(centre_y - reach_y + 0.5, length_y, taps_y)
        x0 = first_tap(centre_x - reach_x + 0.5, length_x, taps_x)
        p = p_crop + ((y0.to(tl.int32) * step_y)[:, None] + (x0.to(tl.int32) * step_x)[None, :])
        distance_y = y0 - centre_y + 0.5
        distance_x = x0 - centre_x + 0.5
        r = tl.zeros((RB, CB), tl.float32)
        g = tl.zeros((RB, CB), tl.float32)
        b = tl.zeros((RB, CB), tl.float32)
        sum_y = tl.zeros((RB, 1), tl.float32)
        sum_x = tl.zeros((1, CB), tl.float32)
        rows = taps_y.to(tl.int32)
        columns = taps_x.to(tl.int32)
        # Two columns at a time while they are 3 bytes apart, which constant offsets reach.
        paired = tl.where(step_x == 3, columns & -2, 0)
        for j in range(0, rows):
            wy = triangle(distance_y + j, inverse_y)[:, None]
            sum_y += wy
            for i in range(0, paired, 2):
                wx = triangle(distance_x + i, inverse_x)[None, :]
                wx2 = triangle(distance_x + (i + 1), inverse_x)[None, :]
                sum_x += wx + wx2
                q = p + (j * step_y + i * 3)
                w = wy * wx
                w2 = wy * wx2
                r += w * byte(q, PTX)
                g += w * byte(q + 1, PTX)
                b += w * byte(q + 2, PTX)
                r += w2 * byte(q + 3, PTX)
                g += w2 * byte(q + 4, PTX)
                b += w2 * byte(q + 5, PTX)
            for i in range(paired, columns):
                wx = triangle(distance_x + i, inverse_x)[None, :]
                sum_x += wx
                q = p + (j * step_y + i * step_x)
                w = wy * wx
                r += w * byte(q, PTX)
                g += w * byte(q + 1, PTX)
                b += w * byte(q + 2, PTX)
        # sum_x has gone round once for every row tap.
        norm = (1.0 / sum_y) * (taps_y / sum_x)
        r *= norm
        g *= norm
        b *= norm
    return r, g, b
