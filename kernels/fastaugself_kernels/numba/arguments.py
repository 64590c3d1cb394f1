"""Positions in the arrays of whole numbers and switches that a kernel gets for a batch."""

from ..backends import Options

VIEWS, BATCH, OUT_H, OUT_W, KIND, MARGIN, TOP_ROWS, PLANE, STRIP_PLANE, STRIP_ROWS, CHANNELS = range(11)  # of `shape`
WANT_SHIFT, STREAMING = range(2)  # of `switches`
# Of `options`, which holds the fields of `Options` as int64. An option of a single operation is named in color.py.
ANTIALIAS, ROUNDING, BLUR_KERNEL = (Options._fields.index(name) for name in ("antialias", "rounding", "blur_kernel"))
