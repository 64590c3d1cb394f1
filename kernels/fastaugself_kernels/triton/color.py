"""Colour operations on pixels in [0, 1], as torchvision defines them on float tensors."""

import triton
import triton.language as tl

from .. import params
from ..backends import Options
from .columns import (
    BRIGHTNESS,
    CONTRAST,
    GRAY,
    HUE,
    JITTER,
    OP_CONTRAST,
    OP_HUE,
    OP_SATURATION,
    ORDER,
    SATURATION,
)

SOLARIZE = tl.constexpr(params.SOLARIZE)


def color_constants(options: Options) -> dict[str, bool]:
    """The compile-time constants of the kernels that depend on an option of a single operation.

    BEFORE_GRAY: whether some point operation is between jitter and gray.
    """
    return {"BEFORE_GRAY": options.solarize_before_gray}


@triton.jit
def _clamp(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)  # free: ptxas folds it into the FFMA before (.SAT)


@triton.jit
def luma(r, g, b):
    """ITU-R 601 with torchvision's weights."""
    return 0.2989 * r + 0.587 * g + 0.114 * b


@triton.jit
def _sector(start, turns):
    """The first hue of a hexcone sector in sixths of a turn, moved by `turns`, in [-1, 5)."""
    moved = start + 6.0 * turns
    return tl.where(moved >= 5.0, moved - 6.0, tl.where(moved < -1.0, moved + 6.0, moved))


@triton.jit
def _shift_hue(r, g, b, turns):
    """The hue of the HSV hexcone moved by `turns` in [-0.5, 0.5].

    With h in [0, 6) and chroma = max - min, red is min + chroma * clamp(|h - 3| - 1), green min + chroma *
    clamp(2 - |h - 2|) and blue min + chroma * clamp(2 - |h - 4|). Here everything is multiplied by the chroma, so that
    finding h = sector + difference / chroma takes no division.
    """
    high = tl.maximum(r, tl.maximum(g, b))
    low = tl.minimum(r, tl.minimum(g, b))
    chroma = high - low
    is_r = high == r
    is_g = high == g
    sector = tl.where(is_r, _sector(0.0, turns), tl.where(is_g, _sector(2.0, turns), _sector(4.0, turns)))
    hue = chroma * sector + tl.where(is_r, g - b, tl.where(is_g, b - r, r - g))
    hue = tl.where(hue < 0.0, chroma * 6.0 + hue, hue)
    # _clamp costs nothing, so only the upper bound takes an instruction.
    r = low + tl.minimum(_clamp(tl.abs(hue - 3.0 * chroma) - chroma), chroma)
    g = low + tl.minimum(_clamp(2.0 * chroma - tl.abs(hue - 2.0 * chroma)), chroma)
    b = low + tl.minimum(_clamp(2.0 * chroma - tl.abs(hue - 4.0 * chroma)), chroma)
    return r, g, b


@triton.jit
def _scale_saturation(r, g, b, factor):
    """S of HSV times the factor, clamped to [0, 1].

    It multiplies each channel's distance from the highest by the factor or 1 / S; where the chroma is 0, so are these.
    """
    high = tl.maximum(r, tl.maximum(g, b))
    low = tl.minimum(r, tl.minimum(g, b))
    rest = 1.0 - tl.minimum(high / tl.maximum(high - low, 1e-30), tl.maximum(factor, 0.0))
    r = _clamp(r + (high - r) * rest)
    g = _clamp(g + (high - g) * rest)
    b = _clamp(b + (high - b) * rest)
    return r, g, b


@triton.jit
def load_color(p_row):
    """What the steps of a row need: (first, last, order, brightness, contrast, saturation, hue).

    Steps 0..3 are the jitter in the row's order, step 4 is the gray, which is a saturation of 0; a view takes the
    steps from `first` to before `last`.
    """
    first = tl.where(tl.load(p_row + JITTER) > 0.5, 0, 4)
    last = tl.where(tl.load(p_row + GRAY) > 0.5, 5, 4)
    order = tl.load(p_row + ORDER).to(tl.int32) | (OP_SATURATION << 8)
    factors = (
        tl.load(p_row + BRIGHTNESS),
        tl.load(p_row + CONTRAST),
        tl.load(p_row + SATURATION),
        tl.load(p_row + HUE),
    )
    return first, last, order, factors


@triton.jit
def _step(r, g, b, position, order, factors, mean, HSV: tl.constexpr):
    """One step; `mean` is the mean luma that contrast blends with. The branches are taken by whole programs.

    HSV: whether saturation is that of HSV; then the step must be of the jitter, because step 4 is a blend.
    """
    brightness, contrast, saturation, hue = factors
    op = (order >> (2 * position)) & 3
    if op == OP_HUE:
        r, g, b = _shift_hue(r, g, b, hue)
    elif op == OP_SATURATION:
        if HSV:
            r, g, b = _scale_saturation(r, g, b, saturation)
        else:
            own = tl.where(position == 4, 0.0, saturation)
            gray = (1.0 - own) * 0.2989 * r + (1.0 - own) * 0.587 * g + (1.0 - own) * 0.114 * b
            r = _clamp(own * r + gray)
            g = _clamp(own * g + gray)
            b = _clamp(own * b + gray)
    else:
        factor = tl.where(op == OP_CONTRAST, contrast, brightness)
        offset = tl.where(op == OP_CONTRAST, (1.0 - contrast) * mean, 0.0)
        r = _clamp(factor * r + offset)
        g = _clamp(factor * g + offset)
        b = _clamp(factor * b + offset)
    return r, g, b


@triton.jit
def color_steps(r, g, b, first, last, order, factors, mean, HSV: tl.constexpr):
    """The steps from `first` to before `last`, with the mean luma that the contrast step blends with.

    HSV: as `_step` has it.
    """
    for position in range(first, last):
        r, g, b = _step(r, g, b, position, order, factors, mean, HSV)
    return r, g, b


@triton.jit
def contrast_position(order):
    """Which of the four jitter steps is contrast."""
    found = 3
    for position in tl.static_range(3):
        found = tl.where(((order >> (4 - 2 * position)) & 3) == OP_CONTRAST, 2 - position, found)
    return found


@triton.jit
def jitter_whole_image(r, g, b, first, order, factors, inside, COUNT: tl.constexpr, HSV: tl.constexpr):
    """The jitter of an image that one program holds whole; `inside` marks its COUNT pixels."""
    for position in range(first, 4):
        mean = 0.0
        if ((order >> (2 * position)) & 3) == OP_CONTRAST:
            mean = tl.sum(tl.where(inside, luma(r, g, b), 0.0)) * (1.0 / COUNT)
        r, g, b = _step(r, g, b, position, order, factors, mean, HSV)
    return r, g, b


@triton.jit
def load_points(p_row):
    """The columns of a row that `before_gray` and `after_blur` need."""
    return (tl.load(p_row + SOLARIZE),)


@triton.jit
def before_gray(r, g, b, points, BEFORE_GRAY: tl.constexpr):
    """The point operations between jitter and gray; called only if BEFORE_GRAY."""
    return _solarize(r, g, b, points[0])


@triton.jit
def after_blur(r, g, b, points, BEFORE_GRAY: tl.constexpr):
    """The point operations between blur and normalisation."""
    if not BEFORE_GRAY:
        r, g, b = _solarize(r, g, b, points[0])
    return r, g, b


@triton.jit
def _solarize(r, g, b, threshold):
    if threshold <= 1.0:
        r = tl.where(r >= threshold, 1.0 - r, r)
        g = tl.where(g >= threshold, 1.0 - g, g)
        b = tl.where(b >= threshold, 1.0 - b, b)
    return r, g, b
