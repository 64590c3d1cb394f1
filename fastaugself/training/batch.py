"""A decoded batch to what the learner takes: views, conditions and targets.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, N photos.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import Targets, augment, augself_targets, descriptors, sample_params

from ..config import Pretrain
from ..data.canvas import Canvas
from ..methods.augself import AugSelfLoss
from ..methods.base import Views

PROBES = 32_768  # draws from which the level of heads that learn nothing is estimated, to about 1 %
AT_A_TIME = 2048  # of them: the published solarize loss compares all with all


class Batch(NamedTuple):
    """What one step is made of. epoch: of the batch, from 0. ids_B: int64 sample ids."""

    epoch: int
    views: Views
    targets: tuple[Targets, Targets]
    ids_B: Tensor


def make_views(config: Pretrain, canvas: Canvas, epoch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two views [2, B, C, H, W] of a batch in an epoch, and the parameters [2, B, P] they were made with."""
    params_VBP = sample_params(canvas.ids_B, canvas.sizes_B2, config.policies, seed=config.seed, epoch=epoch)
    return _apply(config, canvas, params_VBP, config.view.size, dtype)[0], params_VBP


def make_batch(
    config: Pretrain, canvas: Canvas, epoch: int, dtype: torch.dtype
) -> tuple[Views, tuple[Targets, Targets]]:
    """Everything the learner takes of a batch in an epoch. dtype: of the views."""
    policies = config.all_policies
    params_VBP = sample_params(canvas.ids_B, canvas.sizes_B2, policies, seed=config.seed, epoch=epoch)
    condition = config.cassle.columns > 0
    x_VBCHW, shift_VB3 = _apply(config, canvas, params_VBP[:2], config.view.size, dtype, shift=condition)
    small_VBCHW = None
    if config.small_views:
        small_VBCHW, more_VB3 = _apply(config, canvas, params_VBP[2:], config.small_view.size, dtype, shift=condition)
        shift_VB3 = torch.cat([shift_VB3, more_VB3]) if shift_VB3 is not None and more_VB3 is not None else None
    omega_VBn = None
    if condition:
        omega_VBn = descriptors(params_VBP, canvas.sizes_B2, policies, shift_VB3, include=config.cassle.include)
    targets = augself_targets(params_VBP, canvas.sizes_B2, policies, mode=config.augself.mode)
    # A copy: the batch is the loader's again once its views are made.
    return Views(x_VBCHW, canvas.labels_B.clone(), omega_VBn, small_VBCHW), targets


def null_losses(config: Pretrain, sizes_N2: NDArray[np.int32], augself: AugSelfLoss) -> dict[str, float]:
    """The auxiliary losses, by name, of heads that answer 0 on these photos. sizes_N2: (height, width), pixels."""
    sizes = torch.from_numpy(sizes_N2)
    losses: dict[str, float] = {}
    for ids_B in torch.arange(PROBES).split(AT_A_TIME):  # as if the photos came again under further ids
        sizes_B2 = sizes[ids_B % len(sizes)].to(torch.int32)
        params_VBP = sample_params(ids_B, sizes_B2, config.policies, seed=config.seed, epoch=0)
        targets = augself_targets(params_VBP, sizes_B2, config.policies, mode=config.augself.mode)
        for name, value in augself.null_losses(targets).items():
            losses[name] = losses.get(name, 0.0) + float(value) * AT_A_TIME / PROBES
    return losses


def _apply(
    config: Pretrain, canvas: Canvas, params_VBP: Tensor, size: int, dtype: torch.dtype, *, shift: bool = False
) -> tuple[Tensor, Tensor | None]:
    a = config.augment
    options: dict[str, Any] = {
        "size": size,
        "mean": a.mean,
        "std": a.std,
        "dtype": dtype,
        "rounding": a.rounding,
        "antialias": a.antialias,
        "blur_kernel": a.blur_kernel,
        "solarize_before_gray": a.solarize_before_gray,
        "backend": a.backend,
    }
    source = (canvas.pixels, canvas.offsets_B, canvas.sizes_B2, params_VBP.contiguous())
    if shift:
        return augment(*source, color_shift=True, **options)
    return augment(*source, color_shift=False, **options), None
