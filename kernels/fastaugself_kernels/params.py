"""The parameter row of one view of one sample, and the policy it is drawn from.

A row is 16 float32 columns; a batch of them is `params_VBP` (V views, B samples, P = 16 columns). It is everything
an augmentation does: who holds the row can replay the view, invert it, or train on it.
"""

import importlib.util
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

COLUMNS: tuple[str, ...] = (
    "top",  # pixels of the decoded image: first row of the crop box
    "left",  # pixels: first column of the crop box
    "height",  # pixels: rows of the crop box
    "width",  # pixels: columns of the crop box
    "flip",  # 0 or 1: mirrored left-right, after the rotation
    "rotation",  # quarter turns counter-clockwise, 0..3
    "jitter",  # 0 or 1: whether brightness, contrast, saturation and hue are applied
    "order",  # four 2-bit op ids, first op in the low bits (0 brightness, 1 contrast, 2 saturation, 3 hue)
    "brightness",  # factor, 1 = identity
    "contrast",  # factor, 1 = identity
    "saturation",  # factor, 1 = identity
    "hue",  # turns in [-0.5, 0.5], 0 = identity
    "gray",  # 0 or 1
    "sigma",  # pixels of the output, 0 = no blur
    "solarize",  # threshold in [0, 1], 2 = off
    "spare",  # 0
)
P = len(COLUMNS)
TOP, LEFT, HEIGHT, WIDTH, FLIP, ROTATION, JITTER, ORDER = range(8)
BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY, SIGMA, SOLARIZE, SPARE = range(8, 16)

OP_BRIGHTNESS, OP_CONTRAST, OP_SATURATION, OP_HUE = range(4)
SOLARIZE_OFF = 2.0
IDENTITY_ORDER = OP_BRIGHTNESS | OP_CONTRAST << 2 | OP_SATURATION << 4 | OP_HUE << 6

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

POLICY_COLUMNS = 32  # float64 columns of the packed policy that the samplers read
# Draws of a view: its slots 0-9 are the attempts of the random resized crop, 10-13 everything else.
CROP_ATTEMPTS = 10
SLOTS = 14
SLOTS_PER_VIEW = 64


@dataclass(frozen=True)
class ViewPolicy:
    """Ranges and probabilities from which the parameters of one view are drawn.

    Probabilities are per sample and view. Jitter strengths s give factors uniform in [max(0, 1 - s), 1 + s] (hue:
    turns in [-s, s]) applied in a random order per sample, as torchvision's ColorJitter does. The crop is
    torchvision's RandomResizedCrop: ten attempts, then the largest central box whose ratio is allowed, so
    `scale=(1, 1), ratio=(1, 1)` is a central square crop.
    """

    size: int = 224
    """Side of the square output in pixels."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Area of the crop as a fraction of the image, uniform."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of the crop, log-uniform."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    rotation: float = 0.0
    """Probability of a rotation by 0, 1, 2 or 3 quarter turns, uniform."""
    brightness: float = 0.4
    """Strength of the brightness jitter."""
    contrast: float = 0.4
    """Strength of the contrast jitter."""
    saturation: float = 0.4
    """Strength of the saturation jitter."""
    hue: float = 0.1
    """Strength of the hue jitter, in turns, at most 0.5."""
    jitter: float = 0.8
    """Probability of colour jitter (the four strengths above)."""
    gray: float = 0.2
    """Probability of grayscale."""
    blur: float = 0.5
    """Probability of Gaussian blur."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in output pixels, uniform."""
    solarize: float = 0.0
    """Probability of solarization: values at or above the threshold are inverted."""
    solarize_threshold: tuple[float, float] = (0.5, 0.5)
    """Threshold of the solarization in [0, 1], uniform."""

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise ValueError(f"ViewPolicy.{field} must satisfy {rule}, got {getattr(self, field)!r}")

        check(isinstance(self.size, int) and self.size >= 1, "size", "size >= 1 (pixels)")
        check(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "0 < min <= max <= 1 (fractions of the image's area)")
        check(0 < self.ratio[0] <= self.ratio[1] < math.inf, "ratio", "0 < min <= max (width / height)")
        check(0 < self.sigma[0] <= self.sigma[1] < math.inf, "sigma", "0 < min <= max (pixels of the output)")
        low, high = self.solarize_threshold
        check(0 <= low <= high <= 1, "solarize_threshold", "0 <= min <= max <= 1")
        for field in ("flip", "rotation", "jitter", "gray", "blur", "solarize"):
            check(0 <= getattr(self, field) <= 1, field, "0 <= probability <= 1")
        for field in ("brightness", "contrast", "saturation"):
            check(0 <= getattr(self, field) < math.inf, field, "strength >= 0")
        check(0 <= self.hue <= 0.5, "hue", "0 <= strength <= 0.5 (turns)")

    @classmethod
    def moco_v2(cls, size: int = 224) -> "ViewPolicy":
        """MoCo v2's views, which AugSelf and CASSLE use too (Chen 2020, arXiv 2003.04297; Lee 2021, 2111.09613)."""
        return cls(size=size)

    @classmethod
    def simclr(cls, size: int = 224, strength: float = 1.0) -> "ViewPolicy":
        """SimCLR's views at colour `strength` (Chen 2020, arXiv 2002.05709, appendix A)."""
        s = 0.8 * strength
        return cls(size=size, scale=(0.08, 1.0), brightness=s, contrast=s, saturation=s, hue=min(0.5, 0.2 * strength))

    @classmethod
    def byol(cls, view: int, size: int = 224) -> "ViewPolicy":
        """BYOL's asymmetric views, 0 or 1 (Grill 2020, arXiv 2006.07733, table 6)."""
        if view not in (0, 1):
            raise ValueError(f"ViewPolicy.byol takes view 0 or 1, got {view!r}")
        base = cls(size=size, scale=(0.08, 1.0), brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
        return replace(base, blur=(1.0, 0.1)[view], solarize=(0.0, 0.2)[view])

    @classmethod
    def spatial(cls, size: int = 224) -> "ViewPolicy":
        """Crop and flip only: the Ventral views of Ericsson 2021 (arXiv 2111.11398)."""
        return cls(size=size, jitter=0.0, gray=0.0, blur=0.0)

    @classmethod
    def appearance(cls, size: int = 224) -> "ViewPolicy":
        """Colour and blur on a fixed central crop: the Dorsal views of Ericsson 2021 (arXiv 2111.11398).

        Blur acts on the output here, on the full-size photo there.
        """
        return cls(size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)

    @classmethod
    def none(cls, size: int = 224) -> "ViewPolicy":
        """A central square crop, resized: no randomness."""
        return cls(
            size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, gray=0.0, blur=0.0, solarize=0.0
        )

    def factor_ranges(self) -> tuple[tuple[float, float], ...]:
        """Bounds of the brightness, contrast and saturation factors and of the hue shift (turns)."""
        factors = ((max(0.0, 1 - s), 1 + s) for s in (self.brightness, self.contrast, self.saturation))
        return (*factors, (-self.hue, self.hue))


def default_blur_kernel(size: int) -> int:
    """Kernel size in pixels of the blur for views of `size` pixels: a tenth of the size, odd, at least 3.

    That is 23 at 224 px (SimCLR, arXiv 2002.05709, appendix A) and 9 at 96 px (AugSelf on STL10). 1 for views of one
    pixel, which cannot be padded by reflection.
    """
    return max(3, size // 10 | 1) if size > 1 else 1


def pack_policies(policies: tuple[ViewPolicy, ...]) -> Tensor:
    """The policies as float64 [V, 32], in the column order that the samplers read."""
    rows = []
    for p in policies:
        row = [*p.scale, math.log(p.ratio[0]), math.log(p.ratio[1]), *p.ratio, p.jitter]
        for bounds in p.factor_ranges():
            row.extend(bounds)
        row += [p.gray, p.blur, *p.sigma, p.solarize, *p.solarize_threshold, p.flip, p.rotation]
        rows.append(row + [0.0] * (POLICY_COLUMNS - len(row)))
    return torch.tensor(rows, dtype=torch.float64)


@lru_cache(maxsize=64)
def packed(policies: tuple[ViewPolicy, ...], device: torch.device) -> Tensor:
    """The same on a device, copied there once."""
    return pack_policies(policies).to(device)


Rounding = Literal["uint8", "none"]
Backend = Literal["auto", "triton", "numba", "reference"]
INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("triton", "numba")}  # not imported yet
