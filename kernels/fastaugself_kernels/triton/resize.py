"""First of two launches for large outputs: source bytes to a resized planar image and the sums that colour needs."""

import triton
import triton.language as tl

from .color import color_steps, contrast_position, load_color, luma
from .columns import P
from .gather import gather, load_geometry


@triton.jit
def _by_thread(x, RB: tl.constexpr, CB: tl.constexpr, WARPS: tl.constexpr):
    """Sums of the values of a thread (every WARPS-th row of a column), so that a running sum is one register."""
    return tl.sum(tl.reshape(x, (RB // WARPS, WARPS, CB)), 0)


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
    RB: tl.constexpr,  # rows and columns that are worked on at a time
    CB: tl.constexpr,
    STEPS: tl.constexpr,  # times that a tile is CB columns wide: what belongs to its rows is found once
    WARPS: tl.constexpr,
    TILES: tl.constexpr,  # tiles of a view; a program does one
    ROUND: tl.constexpr,
    ANTIALIAS: tl.constexpr,
    PTX: tl.constexpr,  # whether PTX can be inlined: for NVIDIA, and not in the interpreter
    HSV: tl.constexpr,  # whether the jitter's saturation is that of HSV
    SHIFT: tl.constexpr,  # whether to sum red, green and blue too
):
    vb = tl.program_id(0) // TILES
    tile = tl.program_id(0) % TILES
    ACROSS: tl.constexpr = (OW + CB * STEPS - 1) // (CB * STEPS)
    PLANE: tl.constexpr = OH * OW
    dtype = p_scratch.dtype.element_ty
    p_row = p_params + vb.to(tl.int64) * P
    p_view = p_scratch + vb.to(tl.int64) * (3 * PLANE)
    geometry = load_geometry(p_pixels, p_offsets, p_strides, vb % B, p_row)
    first, _last, order, factors = load_color(p_row)
    contrast = contrast_position(order)
    y = (tile // ACROSS) * RB + tl.arange(0, RB)
    y_in = tl.minimum(y, OH - 1)
    start = (tile % ACROSS) * (CB * STEPS)
    sum_luma = tl.zeros((WARPS, CB), tl.float32)
    sum_r = tl.zeros((WARPS, CB), tl.float32)
    sum_g = tl.zeros((WARPS, CB), tl.float32)
    sum_b = tl.zeros((WARPS, CB), tl.float32)

    for step in range(start, tl.minimum(start + CB * STEPS, OW), CB):
        x = step + tl.arange(0, CB)
        inside = (y < OH)[:, None] & (x < OW)[None, :]
        r, g, b = gather(geometry, y_in, tl.minimum(x, OW - 1), OH, OW, RB, CB, ANTIALIAS, PTX)
        # The lie about contiguity gives each lane a column of its own. A warp then gathers along a row of the source,
        # one or two cache lines at a time, and not from eight rows for the sake of wider stores.
        p = p_view + (y[:, None] * OW + tl.max_contiguous(x, 1)[None, :])
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
            ALL_INSIDE: tl.constexpr = (OH % RB == 0) and (OW % CB == 0)
            if not ALL_INSIDE:
                r = tl.where(inside, r, 0.0)
                g = tl.where(inside, g, 0.0)
                b = tl.where(inside, b, 0.0)
            if SHIFT:
                sum_r += _by_thread(r, RB, CB, WARPS)
                sum_g += _by_thread(g, RB, CB, WARPS)
                sum_b += _by_thread(b, RB, CB, WARPS)
            # Black stays black through brightness, saturation and hue, so what is outside adds nothing.
            r, g, b = color_steps(r, g, b, 0, contrast, order, factors, 0.0, HSV)
            sum_luma += _by_thread(luma(r, g, b), RB, CB, WARPS)

    if first == 0:
        p_sum = p_sums + vb.to(tl.int64) * TILES + tile
        tl.store(p_sum, tl.sum(sum_luma))
        if SHIFT:
            plane = VB.to(tl.int64) * TILES
            tl.store(p_sum + plane, tl.sum(sum_r))
            tl.store(p_sum + 2 * plane, tl.sum(sum_g))
            tl.store(p_sum + 3 * plane, tl.sum(sum_b))
