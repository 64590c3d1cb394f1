"""Feature extraction with a frozen backbone while it trains.

Shape suffixes: V views, B batch, C channels, H W, N samples, D features.
"""

from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy, augment, sample_params
from fastaugself_kernels.backends import Backend

from ..data.loader import Loader


class Features(NamedTuple):
    """Pooled features [N, D] (float32, not normalised), labels [N] (int64, -1 if unknown), sample ids [N] (int64)."""

    features_ND: Tensor
    labels_N: Tensor
    ids_N: Tensor


@torch.no_grad()
def extract(
    backbone: nn.Module,
    loader: Loader,
    *,
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    limit: int | None = None,
    channels_last: bool = True,
    backend: Backend = "auto",
) -> Features:
    """Features of a data set's photos, on the CPU.

    Each photo's central square is resized to `size` pixels and passed through the backbone in evaluation mode; the
    training mode is restored afterwards. backbone: images [B, 3, H, W] to features [B, D]. mean, std: of the
    normalisation, in [0, 1]. device: where the backbone is. limit: stop after this many samples, in the loader's order
    of epoch 0. channels_last: memory format of the images. backend: of `augment`.
    """
    policies = (ViewPolicy.none(size),)
    was_training = backbone.training
    backbone.eval()
    features, labels, ids, count = [], [], [], 0
    layout = torch.channels_last if channels_last else torch.contiguous_format
    try:
        with closing(loader.epoch(0)) as batches:
            for photos in batches:
                params_VBP = sample_params(photos.ids_B, photos.sizes_B2, policies, seed=0, epoch=0)
                x_VBCHW = augment(
                    photos.pixels,
                    photos.offsets_B,
                    photos.sizes_B2,
                    params_VBP,
                    size=size,
                    mean=mean,
                    std=std,
                    blur_kernel=1,
                    backend=backend,
                )
                features.append(backbone(x_VBCHW[0].contiguous(memory_format=layout)).float().cpu())
                labels.append(photos.labels_B.cpu())
                ids.append(photos.ids_B.cpu())
                count += len(photos.ids_B)
                if limit is not None and count >= limit:
                    break
    finally:
        backbone.train(was_training)
    return Features(torch.cat(features)[:limit], torch.cat(labels)[:limit], torch.cat(ids)[:limit])
