"""Augmented views of images, made with the kernels of training, for the protocols about augmentations.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, 2 = (height, width).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastaugself_kernels import ViewPolicy, augment, sample_params
from fastaugself_kernels.params import HEIGHT, LEFT, TOP, WIDTH

from .encoder import Encoder
from .prepare import in_threads
from .splits import Split


class Batch(NamedTuple):
    """Normalised views x_VBCHW with their parameters, the sizes of the images, and the colour shifts."""

    x_VBCHW: Tensor
    params_VBP: Tensor
    sizes_B2: Tensor
    shift_VB3: Tensor


def centred(params_VBP: Tensor, sizes_B2: Tensor, policies: Sequence[ViewPolicy]) -> Tensor:
    """The parameters, with the largest square crop in the centre for policies that always take it.

    Of photos that are one pixel from square, the sampler draws one of both squares that fit.
    """
    out_VBP = params_VBP.clone()
    for v, policy in enumerate(policies):
        if policy.scale == policy.ratio == (1.0, 1.0):
            out_VBP[v, :, [TOP, LEFT]] = ((sizes_B2 - out_VBP[v, :, [HEIGHT, WIDTH]]) / 2).floor()
    return out_VBP


def view_batches(
    split: Split,
    encoder: Encoder,
    policies: Sequence[ViewPolicy],
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yields the views of the images of a split in order, one view per policy; sample ids are positions."""
    read = in_threads(lambda i: np.array(split.images.open(i)), range(len(split)), workers=workers, ahead=batch_size)
    first = 0
    while photos := list(itertools.islice(read, batch_size)):
        sizes_B2 = torch.tensor([photo.shape[:2] for photo in photos], dtype=torch.int32)
        ends = np.cumsum([photo.size for photo in photos])
        ids_B = torch.arange(first, first + len(photos))
        params_VBP = centred(sample_params(ids_B, sizes_B2, tuple(policies), seed=seed, epoch=0), sizes_B2, policies)
        x_VBCHW, shift_VB3 = augment(
            torch.from_numpy(np.concatenate([photo.reshape(-1) for photo in photos])).to(device),
            torch.from_numpy(np.concatenate([[0], ends[:-1]])).to(device),
            sizes_B2.to(device),
            params_VBP.to(device),
            size=encoder.size,
            mean=encoder.mean,
            std=encoder.std,
            blur_kernel=max(5, encoder.size // 10 | 1),  # 23 at 224 px and 9 at 96 px, as published
            color_shift=True,
        )
        yield Batch(x_VBCHW, params_VBP, sizes_B2, shift_VB3.cpu())
        first += len(photos)
