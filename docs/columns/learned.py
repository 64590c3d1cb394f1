"""One pair of views, with AugSelf's targets and CASSLE's descriptors.

Shape suffixes: V views, B batch (one photo), C channels, H W, P parameter columns, n columns of the descriptors.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastaugself.report.pairs import Pair, describe, to_uint8
from fastaugself.report.samples import Sample, pack
from fastaugself.report.words import Policies, signed
from fastaugself_kernels import (
    CASSLE_PARTS,
    COLUMNS,
    DESCRIPTORS,
    Targets,
    augment,
    augself_targets,
    descriptors,
    sample_params,
)
from fastaugself_kernels.params import SOLARIZE_OFF, default_blur_kernel
from sweeps import row_text
from texts import DESCRIPTOR_TEXTS, TARGETS

Color = tuple[int, int, int]

# The fields of Targets and their widths.
TARGET_FIELDS = {"crop_B4": 4, "color_B4": 4, "flip_B1": 1, "blur_B1": 1, "rotation_B": 1, "solarize_B1": 1}
WHOLE = ("flip_B1", "rotation_B", "flip", "grayscale")
UNSIGNED = ("blur", "crop")


class Entry(NamedTuple):
    """One number of the targets or descriptors.

    group: the field of Targets, or the part of the descriptors. values: of the pairs (view 1, view 2) and (view 2,
    view 1) for a target, of view 1 and view 2 for a descriptor. text: the formula.
    """

    group: str
    name: str
    values: tuple[str, str]
    text: str


class Learned(NamedTuple):
    """A pair of views with its targets and descriptors.

    rows: the parameters of each view, as text. means: mean colour of each crop before and after its jitter.
    """

    pair: Pair
    rows: tuple[tuple[str, ...], ...]
    targets: list[Entry]
    descriptors: list[Entry]
    means: tuple[tuple[Color, Color], ...]


def learn(sample: Sample, policies: Policies, *, seed: int, epoch: int) -> Learned:
    """The pair that the policies draw for the sample, with the published targets and all 14 columns of descriptors."""
    batch, size = pack([sample]), policies[0].size
    params_VBP = sample_params(batch.ids_B, batch.sizes_B2, policies, seed=seed, epoch=epoch)
    unjittered_VBP = params_VBP.clone()
    for column, value in (("jitter", 0.0), ("gray", 0.0), ("sigma", 0.0), ("solarize", SOLARIZE_OFF)):
        unjittered_VBP[..., COLUMNS.index(column)] = value
    x_VBCHW, shift_VB3 = augment(
        batch.pixels,
        batch.offsets_B,
        batch.sizes_B2,
        torch.cat([params_VBP, unjittered_VBP]),
        size=size,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        blur_kernel=default_blur_kernel(size),
        color_shift=True,
    )
    (pair,) = describe([sample], to_uint8(x_VBCHW[:2]), params_VBP, policies)
    before_V3, shift_V3 = x_VBCHW[2:, 0].mean((2, 3)), shift_VB3[:2, 0]
    return Learned(
        pair=pair,
        rows=tuple(row_text(dict(zip(COLUMNS, row, strict=True))) for row in params_VBP[:, 0].tolist()),
        targets=target_entries(augself_targets(params_VBP, batch.sizes_B2, policies)),
        descriptors=descriptor_entries(descriptors(params_VBP, batch.sizes_B2, policies, shift_VB3[:2])),
        means=tuple((_color(before_V3[v]), _color(before_V3[v] - shift_V3[v])) for v in (0, 1)),
    )


def target_entries(targets: tuple[Targets, Targets]) -> list[Entry]:
    """AugSelf's targets of the first sample."""
    groups = [field for field, width in TARGET_FIELDS.items() for _ in range(width)]
    rows = [torch.cat([getattr(t, field)[0].reshape(-1).float() for field in TARGET_FIELDS]).tolist() for t in targets]
    return _entries(groups, rows, TARGETS)


def descriptor_entries(condition_VBn: Tensor) -> list[Entry]:
    """CASSLE's descriptors of the first sample, all 14 columns."""
    groups = [part for part in CASSLE_PARTS for _ in range(DESCRIPTORS[part])]
    return _entries(groups, condition_VBn[:, 0].tolist(), DESCRIPTOR_TEXTS)


def _entries(groups: list[str], rows: list[list[float]], texts: dict[str, str]) -> list[Entry]:
    entries = []
    for group, name, first, second in zip(groups, texts, *rows, strict=True):
        entries.append(Entry(group, name, (_text(group, first), _text(group, second)), texts[name]))
    return entries


def _text(group: str, value: float) -> str:
    if group in WHOLE:
        return f"{value:.0f}"
    return f"{value:.3f}" if group in UNSIGNED else signed(value, 3)


def _color(value_3: Tensor) -> Color:
    r, g, b = (int(value) for value in (value_3.clamp(0, 1) * 255).round().tolist())
    return r, g, b
