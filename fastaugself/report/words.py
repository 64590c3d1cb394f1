"""Views, differences of views and policies described in words."""

from typing import NamedTuple

from fastaugself_kernels import Targets, ViewPolicy

Policies = tuple[ViewPolicy, ViewPolicy]

OPERATIONS = ("brightness", "contrast", "saturation", "hue")  # indexed by the op ids of the `order` column
# AugSelf's heads in prose, and the parameters whose differences the regression heads predict.
HEADS = {"crop": "crop", "color": "colour", "flip": "flip", "blur": "blur", "rotation": "rotation",
         "solarize": "solarize"}  # fmt: skip
HEAD_LABELS = {"crop": ("centre y", "centre x", "height", "width"), "color": OPERATIONS, "blur": ("sigma",),
               "solarize": ("threshold",)}  # fmt: skip
# Names of the groups of differences, with their units.
GROUPS = {"crop": "crop, relative to the photo", "color": "colour, relative to its range", "blur": "blur"}
MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


class Word(NamedTuple):
    """One parameter in words. label: its name. lines: its value. applied: whether the operation is applied."""

    label: str
    lines: tuple[str, ...]
    applied: bool


class Difference(NamedTuple):
    """One AugSelf target. value: in [-1, 1], for a bar. text: the value with its unit."""

    label: str
    value: float
    text: str


def words(row: dict[str, float], size_2: tuple[int, int], policy: ViewPolicy) -> list[Word]:
    """All parameters of a view in words with units, in the order in which the operations are applied.

    row: parameters by column name. size_2: (height, width) of the photo in pixels.
    """
    area = row["height"] * row["width"] / (size_2[0] * size_2[1])
    box = f"{row['width']:.0f} × {row['height']:.0f} px at ({row['left']:.0f},{NBSP}{row['top']:.0f})"
    turns, threshold = int(row["rotation"]), row["solarize"]
    order = [OPERATIONS[int(row["order"]) >> 2 * place & 3] for place in range(4)]
    jitter = tuple(f"{place}. {_factor(name, row[name])}" for place, name in enumerate(order, 1))
    found = [
        Word("crop", (box, f"{area:.0%} of the photo"), True),
        Word("flip", ("left to right" if row["flip"] else "no",), bool(row["flip"])),
        Word("jitter", jitter if row["jitter"] else ("no",), bool(row["jitter"])),
        Word("grayscale", ("yes" if row["gray"] else "no",), bool(row["gray"])),
        Word("blur", (f"sigma {row['sigma']:.2f} px" if row["sigma"] else "no",), row["sigma"] > 0),
    ]
    if policy.rotation or turns:
        found.insert(1, Word("rotation", (f"{turns * 90}° to the left" if turns else "no",), turns > 0))
    if policy.solarize or threshold <= 1:
        found.append(Word("solarize", (f"from {threshold:.2f} up" if threshold <= 1 else "no",), threshold <= 1))
    return found


def _factor(name: str, value: float) -> str:
    return f"hue {signed(value)} turns" if name == "hue" else f"{name} ×{value:.2f}"


def policy_words(policies: Policies) -> list[str]:
    """The ranges and probabilities of the policies: one line for both views, or one line each if they differ."""
    if policies[0] == policies[1]:
        return [_policy_line(policies[0])]
    return [f"View {v}: {_policy_line(policy)}" for v, policy in enumerate(policies, 1)]


def _policy_line(policy: ViewPolicy) -> str:
    low, high = policy.scale
    parts = ["central square crop"] if low == high == 1 else [f"crop {low:.0%} to {high:.0%} of the photo"]
    strengths = ", ".join(f"{name} {getattr(policy, name):g}" for name in OPERATIONS)
    for name, chance, detail in (
        ("flip", policy.flip, ""),
        ("quarter turns", policy.rotation, ""),
        ("jitter", policy.jitter, f" ({strengths})"),
        ("grayscale", policy.gray, ""),
        ("blur", policy.blur, f" (sigma {policy.sigma[0]:g} to {policy.sigma[1]:g} px)"),
        ("solarize", policy.solarize, f" (from {policy.solarize_threshold[0]:g})"),
    ):
        if chance:
            parts.append(f"{name} {chance:.0%}{detail}")
    return ", ".join(parts)


def differences(targets: Targets, b: int, policies: Policies) -> dict[str, list[Difference]]:
    """AugSelf's targets (view 1 minus view 2) of sample `b` by group, for the operations that the policies use.

    targets: computed with mode="fixed".
    """
    crop = zip(("centre y", "centre x", "height", "width"), targets.crop_B4[b].tolist(), strict=True)
    groups = {"crop": [Difference(name, value, signed(value)) for name, value in crop]}
    if any(policy.jitter for policy in policies):
        color = zip(OPERATIONS, targets.color_B4[b].tolist(), strict=True)
        groups["color"] = [Difference(name, value, signed(value)) for name, value in color]
    if any(policy.blur for policy in policies):
        value, unit = float(targets.blur_B1[b]), max(policy.sigma[1] for policy in policies)
        groups["blur"] = [Difference("sigma", value, f"{signed(value * unit)} px")]
    return groups


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign (a Unicode minus for negative numbers); zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else (MINUS if value < 0 else "+") + text
