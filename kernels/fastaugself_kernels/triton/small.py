"""One launch for outputs of up to 64 x 64: a program holds a whole view, so the contrast mean needs no second one."""

import triton
import triton.language as tl

from .blur import blur_radius, gaussian, reflected_band
from .color import after_blur, before_gray, color_steps, jitter_whole_image, load_color, load_points
from .columns import SIGMA, P
from .gather import gather, load_geometry
from .store import store_rgb


@triton.jit(do_not_specialize=["B"])
def small_kernel(
    p_pixels,  # uint8, all images
    p_offsets,  # int64 [B], first byte of each image
    p_strides,  # int32 [B], bytes per image row
    p_params,  # float32 [V * B, P]
    p_shift,  # float32 [V * B, 3]: mean colour before jitter minus after, if SHIFT
    p_out,  # float16, bfloat16 or float32 [V * B, OH, OW, CHANNELS]
    scale_r,
    scale_g,
    scale_b,
    bias_r,
    bias_g,
    bias_b,
    B,
    OH: tl.constexpr,
    OW: tl.constexpr,
    RB: tl.constexpr,  # OH and OW rounded up to powers of 2, at least 16
    CB: tl.constexpr,
    CHANNELS: tl.constexpr,  # channels of the output: 3, or 4 with a last one of zeros
    RADIUS: tl.constexpr,  # radius of the blur, 0 = none
    ROUND: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    PTX: tl.constexpr,  # whether PTX can be inlined: for NVIDIA, and not in the interpreter
    BEFORE_GRAY: tl.constexpr,  # see color_constants
    HSV: tl.constexpr,  # whether the jitter's saturation is that of HSV
    SHIFT: tl.constexpr,
    DOT: tl.constexpr,  # dtype of the blur's products
    PRECISION: tl.constexpr,  # how float32 ones are taken
):
    vb = tl.program_id(0)
    p_row = p_params + vb.to(tl.int64) * P
    geometry = load_geometry(p_pixels, p_offsets, p_strides, vb % B, p_row)
    y = tl.arange(0, RB)
    x = tl.arange(0, CB)
    inside = (y < OH)[:, None] & (x < OW)[None, :]
    y_in = tl.minimum(y, OH - 1)
    x_in = tl.minimum(x, OW - 1)
    r, g, b = gather(geometry, y_in, x_in, OH, OW, RB, CB, ANTIALIAS, PTX)
    if ROUND:
        r = tl.floor(r + 0.5)
        g = tl.floor(g + 0.5)
        b = tl.floor(b + 0.5)
    r *= 1.0 / 255
    g *= 1.0 / 255
    b *= 1.0 / 255

    COUNT: tl.constexpr = OH * OW
    first, last, order, factors = load_color(p_row)
    if SHIFT:
        before_r = tl.sum(tl.where(inside, r, 0.0))
        before_g = tl.sum(tl.where(inside, g, 0.0))
        before_b = tl.sum(tl.where(inside, b, 0.0))
    r, g, b = jitter_whole_image(r, g, b, first, order, factors, inside, COUNT, HSV)
    if SHIFT:
        p = p_shift + vb.to(tl.int64) * 3
        once = tl.where(first == 0, 1.0 / COUNT, 0.0)
        tl.store(p, (before_r - tl.sum(tl.where(inside, r, 0.0))) * once)
        tl.store(p + 1, (before_g - tl.sum(tl.where(inside, g, 0.0))) * once)
        tl.store(p + 2, (before_b - tl.sum(tl.where(inside, b, 0.0))) * once)

    points = load_points(p_row)
    if BEFORE_GRAY:
        r, g, b = before_gray(r, g, b, points, BEFORE_GRAY)
    r, g, b = color_steps(r, g, b, 4, last, order, factors, 0.0, False)
    if RADIUS > 0:
        sigma = tl.load(p_row + SIGMA)
        if sigma > 0.0:
            radius = blur_radius(sigma, RADIUS)
            kernel = gaussian(sigma, radius)
            x_f = x.to(tl.float32)
            y_f = y.to(tl.float32)
            horizontal = reflected_band(x_f, x_f, kernel, OW).to(DOT)
            vertical = tl.trans(reflected_band(y_f, y_f, kernel, OH)).to(DOT)
            r = tl.dot(vertical, r.to(DOT), input_precision=PRECISION).to(DOT)
            g = tl.dot(vertical, g.to(DOT), input_precision=PRECISION).to(DOT)
            b = tl.dot(vertical, b.to(DOT), input_precision=PRECISION).to(DOT)
            r = tl.dot(r, horizontal, input_precision=PRECISION)
            g = tl.dot(g, horizontal, input_precision=PRECISION)
            b = tl.dot(b, horizontal, input_precision=PRECISION)
    r, g, b = after_blur(r, g, b, points, BEFORE_GRAY)
    store_rgb(
        p_out + vb.to(tl.int64) * (CHANNELS * COUNT), y * OW, tl.where(y < OH, OW, 0), r, g, b,
        scale_r, scale_g, scale_b, bias_r, bias_g, bias_b, RB, CB, CHANNELS, OW % 8 == 0,
    )  # fmt: skip
