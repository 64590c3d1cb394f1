"""What methods learn from the parameters: AugSelf's targets of a pair of views, and descriptors of each view.

Shape suffixes: V views, B batch, P parameter columns, 2 = (height, width).
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .params import (
    BRIGHTNESS,
    FLIP,
    GRAY,
    HEIGHT,
    HUE,
    IDENTITY_ORDER,
    JITTER,
    LEFT,
    ORDER,
    ROTATION,
    SIGMA,
    SOLARIZE,
    TOP,
    WIDTH,
    ViewPolicy,
    packed,
)

TargetMode = Literal["published", "fixed"]


class Targets(NamedTuple):
    """AugSelf's targets for an ordered pair of views (a, b), for B samples.

    crop_B4: (dy, dx, dh, dw) of centres and sizes as fractions of the image, a - b, in a's own frame: dx changes its
        sign where a is flipped.
    color_B4: brightness, contrast, saturation, hue, a - b, each divided by the width of its range; not jittered = 0.
    flip_B1: 1 where both views have the same flip, else 0.
    blur_B1: difference of sigma, a - b, pixels ("published"), or divided by the largest sigma ("fixed").
    rotation_B: int64 class (r_a - r_b) mod 4, quarter turns of the rotations that are visible (`visible_rotation`).
    solarize_B1: difference of thresholds, a - b, 1 where off.
    """

    crop_B4: Tensor
    color_B4: Tensor
    flip_B1: Tensor
    blur_B1: Tensor
    rotation_B: Tensor
    solarize_B1: Tensor


def augself_targets(
    params_VBP: Tensor, sizes_B2: Tensor, policies: Sequence[ViewPolicy], *, mode: TargetMode = "published"
) -> tuple[Targets, Targets]:
    """Targets of AugSelf for the pairs (view 1, view 2) and (view 2, view 1).

    params_VBP: float32 [V, B, 16]; the first two views are compared. sizes_B2: (height, width) of the decoded images.
    policies: those the parameters were drawn from; their ranges scale the colour differences.
    mode: "published" leaves the blur in pixels, so differences beyond 1 are out of a tanh head's reach; "fixed"
        divides it by the largest sigma of the two policies.
    Raises ValueError when there are fewer than two views or policies, or for another mode.
    Source: Lee et al. 2021, "Improving Transferability of Representations via Augmentation-Aware Self-Supervision".
    """
    _check_policies(policies)
    if params_VBP.shape[0] < 2 or len(policies) < 2:
        raise ValueError(f"targets compare two views, got {params_VBP.shape[0]} views and {len(policies)} policies")
    if mode not in ("published", "fixed"):
        raise ValueError(f'mode must be "published" or "fixed", got {mode!r}')
    if _in_one_launch(params_VBP):
        from .triton.targets import targets_triton

        packed_V32 = packed(tuple(policies), params_VBP.device)
        fields = targets_triton(params_VBP, sizes_B2, packed_V32, fixed=mode == "fixed")
        return Targets(*(field[0] for field in fields)), Targets(*(field[1] for field in fields))
    a, b = (_Absolute.of(params_VBP[v], sizes_B2, policies[v]) for v in (0, 1))
    blur_unit = max(policies[0].sigma[1], policies[1].sigma[1]) if mode == "fixed" else 1.0
    return a.minus(b, blur_unit), b.minus(a, blur_unit)


def _check_policies(policies: Sequence[ViewPolicy]) -> None:
    if isinstance(policies, ViewPolicy):
        raise ValueError("policies must be one ViewPolicy per view, got a single one; pass (policy, policy)")


def visible_rotation(params_VBP: Tensor) -> Tensor:
    """Quarter turns counter-clockwise by which the content of each view is turned, 0 to 3: int64 [V, B].

    `augment` rotates by k and then flips, which equals a flip and then a rotation by -k. The published order is the
    latter, and there the direction of "up" in a view shows its rotation whether or not it is flipped. So this is the
    column "rotation", or its negative mod 4 where the view is flipped.
    params_VBP: float32 [V, B, 16]; rows of any other shape [..., 16] give [...].
    """
    turns = params_VBP[..., ROTATION].to(torch.int64)
    return torch.where(params_VBP[..., FLIP] > 0.5, -turns, turns) % 4


def _in_one_launch(params_VBP: Tensor) -> bool:
    """Whether to launch the Triton kernel: on CUDA, except under torch.compile, which fuses the formulas itself."""
    return params_VBP.is_cuda and not torch.compiler.is_compiling()


class _Absolute(NamedTuple):
    """One view's parameters in the units of the differences."""

    y_B: Tensor
    x_B: Tensor
    h_B: Tensor
    w_B: Tensor
    color_B4: Tensor
    flip_B: Tensor
    sigma_B: Tensor
    rotation_B: Tensor
    threshold_B: Tensor

    @classmethod
    def of(cls, row_BP: Tensor, sizes_B2: Tensor, policy: ViewPolicy) -> "_Absolute":
        H, W = sizes_B2.to(torch.float32).unbind(1)
        h, w = row_BP[:, HEIGHT] / H, row_BP[:, WIDTH] / W
        return cls(
            y_B=row_BP[:, TOP] / H + h / 2,
            x_B=row_BP[:, LEFT] / W + w / 2,
            h_B=h,
            w_B=w,
            color_B4=_color(row_BP, policy),
            flip_B=row_BP[:, FLIP],
            sigma_B=row_BP[:, SIGMA],
            rotation_B=visible_rotation(row_BP),
            threshold_B=row_BP[:, SOLARIZE].clamp(max=1),
        )

    def minus(self, other: "_Absolute", blur_unit: float) -> Targets:
        mirrored = 1 - 2 * self.flip_B
        dx = mirrored * (self.x_B - other.x_B)
        crop = torch.stack([self.y_B - other.y_B, dx, self.h_B - other.h_B, self.w_B - other.w_B], 1)
        return Targets(
            crop_B4=crop,
            color_B4=self.color_B4 - other.color_B4,
            flip_B1=(self.flip_B == other.flip_B).to(torch.float32)[:, None],
            blur_B1=((self.sigma_B - other.sigma_B) / blur_unit)[:, None],
            rotation_B=(self.rotation_B - other.rotation_B) % 4,
            solarize_B1=(self.threshold_B - other.threshold_B)[:, None],
        )


def _color(row_BP: Tensor, policy: ViewPolicy) -> Tensor:
    """Jitter factors as offsets from the identity in units of their range, in [-0.5, 0.5]; 0 where off, [B, 4]."""
    widths = [high - low for low, high in policy.factor_ranges()]
    identity = (1.0, 1.0, 1.0, 0.0)
    columns = [(row_BP[:, BRIGHTNESS + i] - identity[i]) / (widths[i] or 1.0) for i in range(HUE - BRIGHTNESS + 1)]
    return torch.stack(columns, 1) * row_BP[:, JITTER, None]


DESCRIPTORS: dict[str, int] = {
    "blur": 1,
    "color": 4,
    "color_diff": 3,
    "crop": 4,
    "flip": 1,
    "grayscale": 1,
    "jitter": 1,
    "order": 4,
    "rotation": 2,
    "solarize": 1,
}
"""Parts of the descriptors and their widths, in the order in which they are concatenated (alphabetical)."""

CASSLE_PARTS = ("blur", "color", "color_diff", "crop", "flip", "grayscale")
"""Parts of CASSLE's omega, which are the default."""

TRITON_PARTS = frozenset(CASSLE_PARTS)
"""Parts that the Triton kernel makes; with any other, CUDA runs the formulas in PyTorch."""


def descriptors(
    params_VBP: Tensor,
    sizes_B2: Tensor,
    policies: Sequence[ViewPolicy],
    shift_VB3: Tensor | None = None,
    *,
    include: Sequence[str] | None = None,
) -> Tensor:
    """Each view's own parameters, as methods are conditioned on them: CASSLE's omega, and parts that others add.

    params_VBP: float32 [V, B, 16]. sizes_B2: (height, width) of the decoded images. policies: one per view.
    shift_VB3: the colour shift that `augment(..., color_shift=True)` returns; needed for "color_diff".
    include: parts of `DESCRIPTORS`; default `CASSLE_PARTS`, without "color_diff" where no shift is given. CASSLE's
        published command uses every one of these but "flip" (13 columns).
    Returns float32 [V, B, n], parts in alphabetical order:
        blur: sigma in pixels. color: in [-0.5, 0.5], 0 where the jitter is off. color_diff: in [0, 1] units.
        crop: (cy, cx, h, w) as fractions, cx mirrored where the view is flipped. flip, grayscale, jitter: 0 or 1.
        order: ids of the jitter's operations from the first applied to the last (0 brightness, 1 contrast, 2
        saturation, 3 hue); 0, 1, 2, 3 where the jitter is off.
        rotation: cosine and sine of the `visible_rotation`. solarize: threshold in [0, 1], 1 where off.
    Raises ValueError for an unknown part, or "color_diff" without a shift.
    Source: Przewiezlikowski et al. 2024, "Augmentation-aware self-supervised learning with conditioned projector".
    """
    if include is None:
        include = [name for name in CASSLE_PARTS if name != "color_diff" or shift_VB3 is not None]
    unknown = sorted(set(include) - set(DESCRIPTORS))
    if unknown or not include:
        raise ValueError(f"include must name parts of {sorted(DESCRIPTORS)}, got {list(include)}")
    if "color_diff" in include and shift_VB3 is None:
        raise ValueError('"color_diff" needs shift_VB3: call augment with color_shift=True')
    _check_policies(policies)
    if len(policies) != params_VBP.shape[0]:
        raise ValueError(f"policies must be one per view, got {len(policies)} for {params_VBP.shape[0]} views")
    if TRITON_PARTS.issuperset(include) and _in_one_launch(params_VBP):
        from .triton.targets import descriptors_triton

        starts, n = columns_of_parts(include)
        packed_V32 = packed(tuple(policies), params_VBP.device)
        return descriptors_triton(params_VBP, sizes_B2, packed_V32, shift_VB3, starts, n)
    views = []
    for v, policy in enumerate(policies):
        row_BP, own = params_VBP[v], _Absolute.of(params_VBP[v], sizes_B2, policy)
        x_B = torch.where(own.flip_B > 0.5, 1 - own.x_B, own.x_B)
        parts = {
            "blur": own.sigma_B[:, None],
            "color": own.color_B4,
            "crop": torch.stack([own.y_B, x_B, own.h_B, own.w_B], 1),
            "flip": own.flip_B[:, None],
            "grayscale": row_BP[:, GRAY, None],
            "jitter": row_BP[:, JITTER, None],
            "solarize": own.threshold_B[:, None],
        }
        if shift_VB3 is not None:
            parts["color_diff"] = shift_VB3[v]
        if "order" in include:
            parts["order"] = _order(row_BP)
        if "rotation" in include:
            parts["rotation"] = _cosine_and_sine(own.rotation_B)
        views.append(torch.cat([parts[name] for name in DESCRIPTORS if name in include], 1))
    return torch.stack(views)


def _order(row_BP: Tensor) -> Tensor:
    """Ids of the jitter's operations in the order in which they are applied, the identity order where off, [B, 4]."""
    packed_B = torch.where(row_BP[:, JITTER] > 0.5, row_BP[:, ORDER].to(torch.int64), IDENTITY_ORDER)
    shifts_4 = torch.arange(0, 8, 2, device=row_BP.device)
    return (packed_B[:, None] >> shifts_4 & 3).to(torch.float32)


def _cosine_and_sine(turns_B: Tensor) -> Tensor:
    """Of quarter turns 0 to 3, exactly, [B, 2]."""
    angle = torch.stack([(turns_B == 0).int() - (turns_B == 2).int(), (turns_B == 1).int() - (turns_B == 3).int()], 1)
    return angle.to(torch.float32)


def columns_of_parts(include: Collection[str]) -> tuple[dict[str, int], int]:
    """The first column of each part that is included, and the number of all columns."""
    starts, n = {}, 0
    for name, width in DESCRIPTORS.items():
        if name in include:
            starts[name], n = n, n + width
    return starts, n
