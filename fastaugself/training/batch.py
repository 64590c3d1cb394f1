"""Turns decoded photos into the input of a training step: views, conditions and targets.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, N photos.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import Targets, augment, augself_targets, descriptors, sample_params

from ..aware.augself import AugSelfLoss
from ..config.schema import Pretrain
from ..data.loader import Loader
from ..data.ragged import RaggedBatch
from ..methods.base import Views

BASELINE_SAMPLES = 32_768  # for the baseline losses, whose standard error is then about 1 %
BASELINE_BATCH = 2048  # a published loss compares every prediction with every target of a batch


class Batch(NamedTuple):
    """The input of one training step. ids_B: int64 sample ids."""

    views: Views
    targets: tuple[Targets, Targets]
    ids_B: Tensor


class Decoded(NamedTuple):
    """Decoded photos of one step. corrupt: number of corrupt photos so far in the epoch, on this process."""

    epoch: int
    photos: RaggedBatch
    corrupt: int


def decoded_photos(loader: Loader, step: int, last_step: int) -> Generator[Decoded]:
    """The photos of every step from `step` to before `last_step`, decoded ahead by the threads of `loader`."""
    while step < last_step:
        epoch, start = divmod(step, loader.batches)
        with closing(loader.epoch(epoch, start)) as batches:
            for photos in batches:
                yield Decoded(epoch, photos, loader.corrupt)
                step += 1
                if step >= last_step:
                    return


class BatchMaker:
    """Makes the input of training steps from decoded photos. config: of the run. dtype: of the views."""

    def __init__(self, config: Pretrain, dtype: torch.dtype) -> None:
        self.config, self.policies = config, config.all_policies
        self.conditioned = config.cassle.condition_dim > 0
        """Whether the projector is conditioned (CASSLE), which needs descriptors and the colour shift."""
        augmentation = config.augment
        common: dict[str, Any] = {f.name: getattr(augmentation, f.name) for f in fields(augmentation)}
        common["dtype"] = dtype
        self._global, self._local = (
            {**common, "size": size, "blur_kernel": augmentation.blur_kernel_at(size)}
            for size in (config.view.size, config.local_crop.size)
        )

    def __call__(self, photos: RaggedBatch, epoch: int) -> Batch:
        """Views, conditions and targets of decoded photos in an epoch (counted from 0)."""
        config, sizes_B2 = self.config, photos.sizes_B2
        params_VBP = sample_params(photos.ids_B, sizes_B2, self.policies, seed=config.seed, epoch=epoch)
        x_VBCHW, shift_VB3 = self.global_views(photos, params_VBP[:2])
        local_LBCHW = condition_VBn = None
        if config.num_local_crops:
            local_LBCHW, shift_LB3 = self._augment(photos, params_VBP[2:], self._local)
            shift_VB3 = torch.cat([shift_VB3, shift_LB3]) if shift_VB3 is not None and shift_LB3 is not None else None
        if self.conditioned:
            condition_VBn = descriptors(params_VBP, sizes_B2, self.policies, shift_VB3, include=config.cassle.include)
        targets = augself_targets(params_VBP, sizes_B2, self.policies, mode=config.augself.mode)
        # Copies: on CUDA all tensors of `photos` share one buffer, so keeping labels or ids would keep the pixels.
        views = Views(x_VBCHW, photos.labels_B.clone(), condition_VBn, local_LBCHW)
        return Batch(views, targets, photos.ids_B.clone())

    def global_views(self, photos: RaggedBatch, params_VBP: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two global views [2, B, C, H, W] of these parameters, and their colour shift if `conditioned`."""
        return self._augment(photos, params_VBP, self._global)

    def _augment(
        self, photos: RaggedBatch, params_VBP: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        source = (photos.pixels, photos.offsets_B, photos.sizes_B2, params_VBP.contiguous())
        if self.conditioned:
            return augment(*source, color_shift=True, **options)
        return augment(*source, **options), None


def make_batch(config: Pretrain, photos: RaggedBatch, epoch: int, dtype: torch.dtype) -> Batch:
    """The input of one training step; `BatchMaker` makes many. dtype: of the views."""
    return BatchMaker(config, dtype)(photos, epoch)


def make_views(config: Pretrain, photos: RaggedBatch, epoch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both global views [2, B, C, H, W] of decoded photos in an epoch, and their parameters [2, B, P]."""
    params_VBP = sample_params(photos.ids_B, photos.sizes_B2, config.policies, seed=config.seed, epoch=epoch)
    return BatchMaker(config, dtype).global_views(photos, params_VBP)[0], params_VBP


def baseline_losses(config: Pretrain, sizes_N2: NDArray[np.int32], augself: AugSelfLoss) -> dict[str, float]:
    """Baseline AugSelf losses by name, of heads that always output zero. sizes_N2: (height, width) of all photos."""
    sizes = torch.from_numpy(sizes_N2)
    losses: dict[str, float] = {}
    for ids_B in torch.arange(BASELINE_SAMPLES).split(
        BASELINE_BATCH
    ):  # photos are repeated under new ids if there are fewer
        sizes_B2 = sizes[ids_B % len(sizes)].to(torch.int32)
        params_VBP = sample_params(ids_B, sizes_B2, config.policies, seed=config.seed, epoch=0)
        targets = augself_targets(params_VBP, sizes_B2, config.policies, mode=config.augself.mode)
        for name, value in augself.baseline_losses(targets).items():
            losses[name] = losses.get(name, 0.0) + float(value) * BASELINE_BATCH / BASELINE_SAMPLES
    return losses
