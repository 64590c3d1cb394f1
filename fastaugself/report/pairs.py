"""Photos with their two views and all augmentation parameters in words.

Parameters and pixels are those of training: same sampler, same kernels, for the same sample id, seed, epoch and policy.

Shape suffixes: V views, B photos, C channels, H W, P parameter columns, 2 = (height, width).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import COLUMNS, augment, augself_targets, sample_params
from fastaugself_kernels.params import default_blur_kernel

from ..data.ragged import RaggedBatch
from .policies import local_policy
from .samples import Sample, pack
from .words import Difference, Policies, Word, differences, words

Box = tuple[float, float, float, float]  # top, left, height, width in pixels of the photo


class LocalCrop(NamedTuple):
    """A local crop (multi-crop): its crop box on the photo, pixels, and parameters in words."""

    box: Box
    view_HWC: NDArray[np.uint8]
    words: list[Word]


class Pair(NamedTuple):
    """A photo and its two views, ready to draw; boxes: the crop box of each view."""

    name: str
    photo_HWC: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    views_HWC: tuple[NDArray[np.uint8], ...]
    words: tuple[list[Word], ...]
    differences: dict[str, list[Difference]]
    local_crops: tuple[LocalCrop, ...] = ()


class Group(NamedTuple):
    """The pairs drawn with one policy; name: the name of the policy."""

    name: str
    policies: Policies
    pairs: list[Pair]


def make_pairs(samples: Sequence[Sample], policies: Policies, *, seed: int, epoch: int, local: int = 0) -> list[Pair]:
    """The views of each sample for this seed and epoch, as in training; local: number of local crops per photo."""
    photos = pack(samples)
    all_policies = (*policies, *[local_policy(policies)] * local)
    params_VBP = sample_params(photos.ids_B, photos.sizes_B2, all_policies, seed=seed, epoch=epoch)
    views_VBHWC = make_views(photos, params_VBP[:2], policies[0].size)
    pairs = describe(samples, views_VBHWC, params_VBP[:2], policies)
    if not local:
        return pairs
    local_LBHWC = make_views(photos, params_VBP[2:].contiguous(), all_policies[2].size)
    return [
        pair._replace(
            local_crops=tuple(
                LocalCrop(box_of(row), local_LBHWC[v, b], words(row, pair.photo_HWC.shape[:2], all_policies[2]))
                for v, row in enumerate(rows_of(params_VBP[2:, b]))
            )
        )
        for b, pair in enumerate(pairs)
    ]


def make_views(photos: RaggedBatch, params_VBP: Tensor, size: int) -> NDArray[np.uint8]:
    """The views for rows of parameters, uint8 [V, B, H, W, C]; size: height and width of the views in pixels."""
    x_VBCHW = augment(
        photos.pixels,
        photos.offsets_B,
        photos.sizes_B2,
        params_VBP,
        size=size,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        blur_kernel=default_blur_kernel(size),
    )
    return to_uint8(x_VBCHW)


def rows_of(params_VP: Tensor) -> list[dict[str, float]]:
    """The parameter rows of one photo as dictionaries by column name, one per view."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in params_VP.tolist()]


def box_of(row: dict[str, float]) -> Box:
    """The crop box of a parameter row."""
    return row["top"], row["left"], row["height"], row["width"]


def outlines(pair: Pair) -> tuple[Box, ...]:
    """The crop boxes to draw; if both are equal, the second is drawn slightly inside the first."""
    first, second = pair.boxes
    if first != second:
        return pair.boxes
    top, left, height, width = second
    inset = 0.012 * max(pair.photo_HWC.shape)
    return first, (top + inset, left + inset, max(0.0, height - 2 * inset), max(0.0, width - 2 * inset))


def to_uint8(x_VBCHW: Tensor) -> NDArray[np.uint8]:
    """Converts images [V, B, C, H, W] in [0, 1] to uint8 [V, B, H, W, C]."""
    x_VBHWC = (x_VBCHW.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    return np.ascontiguousarray(x_VBHWC.cpu().numpy())


def describe(
    samples: Sequence[Sample], views_VBHWC: NDArray[np.uint8], params_VBP: Tensor, policies: Policies
) -> list[Pair]:
    """Pairs to draw, from the views uint8 [V, B, H, W, C] and the parameters [2, B, P] of the samples."""
    sizes_B2 = torch.tensor([sample.pixels_HWC.shape[:2] for sample in samples], dtype=torch.int32)
    targets, _ = augself_targets(params_VBP, sizes_B2, policies, mode="fixed")
    pairs = []
    for b, sample in enumerate(samples):
        rows = rows_of(params_VBP[:2, b])
        height, width = sample.pixels_HWC.shape[:2]
        pairs.append(
            Pair(
                name=f"{sample.name}, {width} × {height} px",
                photo_HWC=sample.pixels_HWC.numpy(),
                boxes=tuple(box_of(row) for row in rows),
                views_HWC=(views_VBHWC[0, b], views_VBHWC[1, b]),
                words=tuple(words(row, (height, width), policy) for row, policy in zip(rows, policies, strict=True)),
                differences=differences(targets, b, policies),
            )
        )
    return pairs
