"""Turns decoded photos into the input of a training step: views with their parameters, and conditions.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, N photos.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import (
    COLUMNS,
    ViewPolicy,
    augment,
    descriptors,
    same_across_views,
    sample_params,
    share_params,
)
from fastaugself_kernels.params import FLIP, SIGMA, default_blur_kernel

from ..aware.base import Share, ViewRequest, unique
from ..aware.descriptors import Descriptors
from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..data.loader import Loader
from ..data.ragged import RaggedBatch
from ..methods.base import ExtraViews, Views

DRAWS = 32_768  # for baseline losses, whose standard error is then about 1 %, and to standardise descriptors
DRAWS_BATCH = 2048  # a published loss compares every prediction with every target of a batch


class Batch(NamedTuple):
    """The input of one training step. ids_B: int64 sample ids."""

    views: Views
    ids_B: Tensor


class Decoded(NamedTuple):
    """Decoded photos of one step. step: counted from 0. corrupt: number of corrupt photos so far in the epoch, on this
    process."""

    step: int
    epoch: int
    photos: RaggedBatch
    corrupt: int


def decoded_photos(loader: Loader, step: int, last_step: int) -> Generator[Decoded]:
    """The photos of every step from `step` to before `last_step`, decoded ahead by the threads of `loader`."""
    while step < last_step:
        epoch, start = divmod(step, loader.batches)
        with closing(loader.epoch(epoch, start)) as batches:
            for photos in batches:
                yield Decoded(step, epoch, photos, loader.corrupt)
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
        self._sizes, self.size = config.sizes, config.view.size
        self._options, self._requests = common, unique(config.requests)

    def __call__(self, photos: RaggedBatch, epoch: int, size: int | None = None) -> Batch:
        """Views and conditions of decoded photos in an epoch (counted from 0).

        size: of the global views in this step, by default that of the configuration. All other views have it in
        proportion, and so has the blur. Parameters, descriptors and targets are those of views of full size.
        """
        config, sizes_B2 = self.config, photos.sizes_B2
        self.size = config.view.size if size is None else size
        params_VBP = sample_params(photos.ids_B, sizes_B2, self.policies, seed=config.seed, epoch=epoch)
        global_VBP, local_VBP, *extra = params_VBP.split(
            (2, config.num_local_crops, *(request.count for request in self._requests))
        )
        if config.share is not None:
            global_VBP = shared(global_VBP, sizes_B2, config.share)
        x_VBCHW, shift_VB3 = self.global_views(photos, global_VBP)
        local_LBCHW = condition_VBn = None
        if config.num_local_crops:
            local_LBCHW, shift_LB3 = self._augment(photos, local_VBP, config.local_crop.size)
            shift_VB3 = torch.cat([shift_VB3, shift_LB3]) if shift_VB3 is not None and shift_LB3 is not None else None
        if self.conditioned:
            conditioned_VBP = torch.cat([global_VBP, local_VBP]) if config.num_local_crops else global_VBP
            condition_VBn = self._condition(conditioned_VBP, sizes_B2, self.policies, shift_VB3)
        # Copies: on CUDA all tensors of `photos` share one buffer, so keeping labels or ids would keep the pixels.
        views = Views(
            x_VBCHW,
            photos.labels_B.clone(),
            condition_VBn,
            local_LBCHW,
            params_VBP=global_VBP,
            sizes_B2=sizes_B2.clone(),
            extra=tuple(self._extra(photos, *wanted) for wanted in zip(self._requests, extra, strict=True)),
        )
        return Batch(views, photos.ids_B.clone())

    def global_views(self, photos: RaggedBatch, params_VBP: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two global views [2, B, C, H, W] of these parameters, and their colour shift if `conditioned`."""
        return self._augment(photos, params_VBP, self.config.view.size)

    def _extra(self, photos: RaggedBatch, request: ViewRequest, params_VBP: Tensor) -> ExtraViews:
        """The views of a request. params_VBP: drawn for all photos of the batch."""
        B, copies = len(photos.sizes_B2), max(1, len(request.copies))
        count = request.photos(B)
        params_VBP, sizes_B2, offsets_B = params_VBP[:, :count], photos.sizes_B2[:count], photos.offsets_B[:count]
        if request.share is not None:
            params_VBP = shared(params_VBP, sizes_B2, request.share)
        if request.same:
            params_VBP = same_across_views(params_VBP, request.same)
        if request.copies:  # the copies of a photo next to each other
            sizes_B2, offsets_B = (x.repeat_interleave(copies, 0) for x in (sizes_B2, offsets_B))
            params_VBP = copied(params_VBP, request.copied, request.copies)
        photos = photos._replace(sizes_B2=sizes_B2, offsets_B=offsets_B)
        x_VBCHW, shift_VB3 = self._augment(photos, params_VBP, request.policy.size)
        condition_VBn = None
        if self.conditioned:
            condition_VBn = self._condition(params_VBP, sizes_B2, (request.policy,) * request.count, shift_VB3)
        return ExtraViews(x_VBCHW, params_VBP, sizes_B2.clone(), condition_VBn)

    def _condition(
        self, params_VBP: Tensor, sizes_B2: Tensor, policies: tuple[ViewPolicy, ...], shift_VB3: Tensor | None
    ) -> Tensor:
        used = policies[: params_VBP.shape[0]]
        return descriptors(params_VBP, sizes_B2, used, shift_VB3, include=self.config.cassle.include)

    def shown(self, size: int) -> int:
        """The size in this step of views that have `size` pixels at full size."""
        return self.size if size == self.config.view.size else self._sizes.scaled(size, self.size)

    def _augment(self, photos: RaggedBatch, params_VBP: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        kernel = self.config.augment.blur_kernel_at(size)
        params_VBP = params_VBP.contiguous()
        if (shown := self.shown(size)) != size:
            params_VBP = params_VBP.clone()
            params_VBP[..., SIGMA] *= shown / size
            given = self.config.augment.blur_kernel
            kernel = default_blur_kernel(shown) if given is None else self._sizes.scaled_kernel(given, self.size)
            size = shown
        options = {**self._options, "size": size, "blur_kernel": kernel}
        source = (photos.pixels, photos.offsets_B, photos.sizes_B2, params_VBP)
        if self.conditioned:
            return augment(*source, color_shift=True, **options)
        return augment(*source, **options), None


def shared(params_VBP: Tensor, sizes_B2: Tensor, share: Share) -> Tensor:
    """The parameters with the columns that chunks of samples share."""
    return share_params(params_VBP, sizes_B2, chunk=share.chunk or len(sizes_B2), parts=share.parts)


def copied(params_VBP: Tensor, column: str, values: tuple[float, ...]) -> Tensor:
    """Each row repeated once per value, with that value in the column, [V, B * values, P].

    The values of "rotation" are quarter turns as they are seen. The kernels rotate before the flip, so the row of a
    flipped view is rotated the other way round.
    """
    value_B = _on_device(values, params_VBP.device).repeat(params_VBP.shape[1])
    params_VBP = params_VBP.repeat_interleave(len(values), 1)
    if column == "rotation":
        value_B = torch.where(params_VBP[..., FLIP] > 0.5, (4 - value_B) % 4, value_B)
    params_VBP[..., COLUMNS.index(column)] = value_B
    return params_VBP


def make_batch(config: Pretrain, photos: RaggedBatch, epoch: int, dtype: torch.dtype, size: int | None = None) -> Batch:
    """The input of one training step; `BatchMaker` makes many. dtype: of the views. size: see `BatchMaker`."""
    return BatchMaker(config, dtype)(photos, epoch, size)


def make_views(config: Pretrain, photos: RaggedBatch, epoch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both global views [2, B, C, H, W] of decoded photos in an epoch, and their parameters [2, B, P]."""
    params_VBP = sample_params(photos.ids_B, photos.sizes_B2, config.policies, seed=config.seed, epoch=epoch)
    return BatchMaker(config, dtype).global_views(photos, params_VBP)[0], params_VBP


@lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The values as float32, copied to the device once and kept: a copy in every step would wait for the device."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def draws(config: Pretrain, sizes_N2: NDArray[np.int32]) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters [2, B, P] of the global views of 32,768 samples in batches, and the sizes [B, 2] of their photos.

    sizes_N2: (height, width) of all photos. Photos are repeated under new ids if there are fewer.
    """
    sizes = torch.from_numpy(sizes_N2)
    for ids_B in torch.arange(DRAWS).split(DRAWS_BATCH):
        sizes_B2 = sizes[ids_B % len(sizes)].to(torch.int32)
        params_VBP = sample_params(ids_B, sizes_B2, config.policies, seed=config.seed, epoch=0)
        yield (params_VBP if config.share is None else shared(params_VBP, sizes_B2, config.share)), sizes_B2


def initialize(config: Pretrain, sizes_N2: NDArray[np.int32], learner: Learner) -> None:
    """Fits the standardised descriptors of a learner to the draws of its policies. sizes_N2: as in `draws`."""
    if any(isinstance(module, Descriptors) for module in learner.modules()):
        device = next(learner.parameters()).device
        params, sizes = zip(*draws(config, sizes_N2), strict=True)
        learner.initialize(torch.cat(params, 1).to(device), torch.cat(sizes).to(device))


def baseline_losses(config: Pretrain, sizes_N2: NDArray[np.int32], learner: Learner) -> dict[str, float]:
    """Baseline losses of the objectives by name, of constant predictions. sizes_N2: as in `draws`."""
    losses: dict[str, float] = {}
    device = next(learner.parameters()).device
    if learner.objectives:
        for params_VBP, sizes_B2 in draws(config, sizes_N2):
            for objective in learner.aware.values():
                for name, value in objective.baseline_losses(params_VBP.to(device), sizes_B2.to(device)).items():
                    losses[name] = losses.get(name, 0.0) + float(value) * DRAWS_BATCH / DRAWS
    return losses
