"""The parameter columns that describe the geometry, the jitter, the gray and the blur, as compile-time constants.

Triton reads no plain global from inside a kernel. The column of any other operation is defined where it is applied.
"""

import triton.language as tl

from .. import params

P = tl.constexpr(params.P)
TOP = tl.constexpr(params.TOP)
LEFT = tl.constexpr(params.LEFT)
HEIGHT = tl.constexpr(params.HEIGHT)
WIDTH = tl.constexpr(params.WIDTH)
FLIP = tl.constexpr(params.FLIP)
ROTATION = tl.constexpr(params.ROTATION)
JITTER = tl.constexpr(params.JITTER)
ORDER = tl.constexpr(params.ORDER)
BRIGHTNESS = tl.constexpr(params.BRIGHTNESS)
CONTRAST = tl.constexpr(params.CONTRAST)
SATURATION = tl.constexpr(params.SATURATION)
HUE = tl.constexpr(params.HUE)
GRAY = tl.constexpr(params.GRAY)
SIGMA = tl.constexpr(params.SIGMA)

OP_CONTRAST = tl.constexpr(params.OP_CONTRAST)
OP_SATURATION = tl.constexpr(params.OP_SATURATION)
OP_HUE = tl.constexpr(params.OP_HUE)
POLICY_COLUMNS = tl.constexpr(params.POLICY_COLUMNS)
