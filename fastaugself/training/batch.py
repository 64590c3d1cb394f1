"""From decoded photos to the input of a training step: views, conditions and targets.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, N photos.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import Targets, augment, augself_targets, descriptors, sample_params

from ..aware.augself import AugSelfLoss
from ..config.schema import Pretrain
from ..data.ragged import RaggedBatch
from ..methods.base import Views

DRAWS = 32_768  # draws of parameters for the baseline losses: their standard error is about 1 %
AT_A_TIME = 2048  # of them: the published solarize loss compares every prediction with every target


class Batch(NamedTuple):
    """The input of one training step. ids_B: int64 sample ids."""

    views: Views
    targets: tuple[Targets, Targets]
    ids_B: Tensor


def make_views(config: Pretrain, photos: RaggedBatch, epoch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two views [2, B, C, H, W] of a batch in an epoch, and the parameters [2, B, P] they were made with."""
    params_VBP = sample_params(photos.ids_B, photos.sizes_B2, config.policies, seed=config.seed, epoch=epoch)
    return _apply(config, photos, params_VBP, config.view.size, dtype)[0], params_VBP


def make_batch(config: Pretrain, photos: RaggedBatch, epoch: int, dtype: torch.dtype) -> Batch:
    """Views, conditions and targets of decoded photos in an epoch. dtype: of the views."""
    policies = config.all_policies
    params_VBP = sample_params(photos.ids_B, photos.sizes_B2, policies, seed=config.seed, epoch=epoch)
    conditioned = config.cassle.condition_dim > 0
    x_VBCHW, shift_VB3 = _apply(config, photos, params_VBP[:2], config.view.size, dtype, shift=conditioned)
    local_LBCHW = None
    if config.num_local_crops:
        size = config.local_crop.size
        local_LBCHW, shift_LB3 = _apply(config, photos, params_VBP[2:], size, dtype, shift=conditioned)
        shift_VB3 = torch.cat([shift_VB3, shift_LB3]) if shift_VB3 is not None and shift_LB3 is not None else None
    condition_VBn = None
    if conditioned:
        condition_VBn = descriptors(params_VBP, photos.sizes_B2, policies, shift_VB3, include=config.cassle.include)
    targets = augself_targets(params_VBP, photos.sizes_B2, policies, mode=config.augself.mode)
    # Copies: on a device all tensors of `photos` share one buffer, and keeping labels or ids would keep the pixels.
    views = Views(x_VBCHW, photos.labels_B.clone(), condition_VBn, local_LBCHW)
    return Batch(views, targets, photos.ids_B.clone())


def baseline_losses(config: Pretrain, sizes_N2: NDArray[np.int32], augself: AugSelfLoss) -> dict[str, float]:
    """AugSelf's losses, by name, of heads that always output zero. sizes_N2: (height, width) of all photos."""
    sizes = torch.from_numpy(sizes_N2)
    losses: dict[str, float] = {}
    for ids_B in torch.arange(DRAWS).split(AT_A_TIME):  # the photos, repeated under further ids
        sizes_B2 = sizes[ids_B % len(sizes)].to(torch.int32)
        params_VBP = sample_params(ids_B, sizes_B2, config.policies, seed=config.seed, epoch=0)
        targets = augself_targets(params_VBP, sizes_B2, config.policies, mode=config.augself.mode)
        for name, value in augself.baseline_losses(targets).items():
            losses[name] = losses.get(name, 0.0) + float(value) * AT_A_TIME / DRAWS
    return losses


def _apply(
    config: Pretrain, photos: RaggedBatch, params_VBP: Tensor, size: int, dtype: torch.dtype, *, shift: bool = False
) -> tuple[Tensor, Tensor | None]:
    a = config.augment
    options: dict[str, Any] = {
        "size": size,
        "mean": a.mean,
        "std": a.std,
        "dtype": dtype,
        "rounding": a.rounding,
        "antialias": a.antialias,
        "blur_kernel": config.augment.blur_kernel_at(size),
        "solarize_before_gray": a.solarize_before_gray,
        "backend": a.backend,
    }
    source = (photos.pixels, photos.offsets_B, photos.sizes_B2, params_VBP.contiguous())
    if shift:
        return augment(*source, color_shift=True, **options)
    return augment(*source, color_shift=False, **options), None
