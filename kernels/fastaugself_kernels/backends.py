"""The back-ends: their names, which of them are installed, and the options that every one of them takes."""

import importlib.util
from typing import Literal, NamedTuple

Backend = Literal["auto", "triton", "numba", "reference"]
Rounding = Literal["uint8", "none"]
Saturation = Literal["blend", "hsv"]
INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("triton", "numba")}  # not imported yet


class Options(NamedTuple):
    """Options of one `augment` call that change the values of the views; every back-end takes them as one record."""

    antialias: bool = True
    """Whether the triangle filter widens when it shrinks the image."""
    rounding: bool = True
    """Whether the resized image is rounded to whole 1/255."""
    blur_kernel: int = 23
    """Taps of the Gaussian, odd."""
    solarize_before_gray: bool = False
    """Whether to solarize between jitter and gray instead of after the blur."""
    hsv_saturation: bool = False
    """Whether the jitter multiplies the saturation of HSV instead of blending with the luma."""
