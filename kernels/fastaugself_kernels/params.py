"""The parameters of a view: their columns, the policy that they are drawn from, and how each column is drawn.

The parameters of one view of one sample are a row of 16 float32 columns; those of a batch are `params_VBP` (V views, B
samples, P = 16 columns). A row determines the augmentation completely, so a view can be replayed, inverted or predicted
from it.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

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
    "order",  # four 2-bit operation ids, first in the low bits (0 brightness, 1 contrast, 2 saturation, 3 hue)
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

PROBABILITIES = ("flip", "rotation", "jitter", "gray", "blur", "solarize")  # fields of a ViewPolicy


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
        for field in PROBABILITIES:
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


# ---- The packed policy: the numbers of a ViewPolicy that the samplers read, as one row of float64.

POLICY_COLUMNS = 32  # more than there are, so that the row need not grow with the next operation


def _packed_fields(policy: ViewPolicy) -> dict[str, tuple[float, ...]]:
    """Probabilities (one number) and ranges (lower bound, upper bound) in the order of the packed policy."""
    low, high = policy.ratio
    brightness, contrast, saturation, hue = policy.factor_ranges()
    return {
        "scale": policy.scale,
        "log_ratio": (math.log(low), math.log(high)),
        "ratio": policy.ratio,
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
        "sigma": policy.sigma,
        "solarize_threshold": policy.solarize_threshold,
        **{name: (getattr(policy, name),) for name in PROBABILITIES},
    }


def _packed_columns() -> dict[str, int]:
    columns, count = {}, 0
    for name, values in _packed_fields(ViewPolicy()).items():
        columns[name], count = count, count + len(values)
    return columns


POLICY = _packed_columns()
"""Column of every field in the packed policy; of a range, that of its lower bound, which the upper bound follows."""


def pack_policies(policies: tuple[ViewPolicy, ...]) -> Tensor:
    """The packed policies, float64 [V, 32], columns as in `POLICY`."""
    rows = []
    for policy in policies:
        values = [value for field in _packed_fields(policy).values() for value in field]
        rows.append(values + [0.0] * (POLICY_COLUMNS - len(values)))
    return torch.tensor(rows, dtype=torch.float64)


@lru_cache(maxsize=64)
def packed(policies: tuple[ViewPolicy, ...], device: torch.device) -> Tensor:
    """The packed policies on `device`, float64 [V, 32]; copied there once and kept."""
    return pack_policies(policies).to(device)


# ---- The draws. Every view of a sample has SLOTS_PER_VIEW Philox counters ("slots") of four 32-bit words each. Slots
# 0 to 9 are the ten attempts of the random resized crop, which the samplers implement; DRAWS lists all the others.

CROP_ATTEMPTS = 10
SLOTS_PER_VIEW = 64
CONSTANT, ONE, UNIFORM, WHOLE, PERMUTATION = range(5)  # kinds of draws


class Gate(NamedTuple):
    """An operation is applied where the uniform number made of `word` is below the policy's `probability`."""

    word: tuple[int, int]
    probability: str


@dataclass(frozen=True)
class Draw:
    """How a column is drawn: a value of the given kind where the operation is applied, else `identity`.

    A word is addressed as (slot, position 0 to 3). To add a column, use words that no other draw uses: all other
    columns then keep their values.
    """

    column: str
    kind: int
    """CONSTANT: always `identity`. ONE: 1. UNIFORM: uniform between the bounds `between` of the policy. WHOLE: whole
    number in [0, below). PERMUTATION: one of the orders of the jitter operations, packed as in the column "order"."""
    word: tuple[int, int] | None = None
    """Word that the value is made of."""
    between: str = ""
    """UNIFORM: name of the range in `POLICY`."""
    below: int = 0
    """WHOLE, PERMUTATION: number of values, at most 256."""
    gate: Gate | None = None
    """None: the operation is always applied."""
    identity: float = 0.0
    """Value of the column where the operation is not applied."""


_JITTERED = Gate((10, 0), "jitter")

DRAWS = (
    Draw("flip", ONE, gate=Gate((12, 2), "flip")),
    Draw("rotation", WHOLE, (13, 1), below=4, gate=Gate((13, 0), "rotation")),
    Draw("jitter", ONE, gate=_JITTERED),
    Draw("order", PERMUTATION, (10, 1), below=24),
    Draw("brightness", UNIFORM, (10, 2), "brightness", gate=_JITTERED, identity=1.0),
    Draw("contrast", UNIFORM, (10, 3), "contrast", gate=_JITTERED, identity=1.0),
    Draw("saturation", UNIFORM, (11, 0), "saturation", gate=_JITTERED, identity=1.0),
    Draw("hue", UNIFORM, (11, 1), "hue", gate=_JITTERED),
    Draw("gray", ONE, gate=Gate((11, 2), "gray")),
    Draw("sigma", UNIFORM, (12, 0), "sigma", gate=Gate((11, 3), "blur")),
    Draw("solarize", UNIFORM, (12, 3), "solarize_threshold", gate=Gate((12, 1), "solarize"), identity=SOLARIZE_OFF),
    Draw("spare", CONSTANT),
)


class DrawNumbers(NamedTuple):
    """`DRAWS` as one tuple of numbers per field, all of the same length: what the samplers of all back-ends read."""

    column: tuple[int, ...]
    kind: tuple[int, ...]
    word: tuple[int, ...]
    """Position among the words of slots CROP_ATTEMPTS to SLOTS - 1, four per slot; 0 where there is none."""
    argument: tuple[int, ...]
    """UNIFORM: column of the lower bound in the packed policy. WHOLE, PERMUTATION: number of values."""
    gate: tuple[int, ...]
    """Position of the gate's word, -1 where the operation is always applied."""
    probability: tuple[int, ...]
    """Column of the gate's probability in the packed policy, 0 where there is no gate."""
    identity: tuple[float, ...]


def _number_draws() -> DrawNumbers:
    def position(word: tuple[int, int]) -> int:
        return 4 * (word[0] - CROP_ATTEMPTS) + word[1]

    return DrawNumbers(
        column=tuple(COLUMNS.index(draw.column) for draw in DRAWS),
        kind=tuple(draw.kind for draw in DRAWS),
        word=tuple(position(draw.word) if draw.word else 0 for draw in DRAWS),
        argument=tuple(POLICY[draw.between] if draw.kind == UNIFORM else draw.below for draw in DRAWS),
        gate=tuple(position(draw.gate.word) if draw.gate else -1 for draw in DRAWS),
        probability=tuple(POLICY[draw.gate.probability] if draw.gate else 0 for draw in DRAWS),
        identity=tuple(draw.identity for draw in DRAWS),
    )


DRAW_NUMBERS = _number_draws()
SLOTS = CROP_ATTEMPTS + 1 + max(*DRAW_NUMBERS.word, *DRAW_NUMBERS.gate) // 4  # slots in use
