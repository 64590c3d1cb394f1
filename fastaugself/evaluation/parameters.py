"""Prediction of the difference between two views' augmentation parameters from their frozen features.

The targets are AugSelf's (arXiv 2111.09613); the probe takes the features of both views of held-out images. With
AugSelf's heads as the probe this is the analysis of CASSLE's authors (arXiv 2306.06082); the ridge probe measures what
is linearly decodable.

Shape suffixes: N images, D features, T targets.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastaugself_kernels import Targets, ViewPolicy, augself_targets

from ..aware.augself import AugSelf, AugSelfLoss
from . import cache
from .encoder import Encoder
from .features import Extractor, Frozen
from .fusion import Representation
from .splits import Split
from .views import view_batches

COLUMNS = {  # target columns by augmentation
    "crop": ("centre y", "centre x", "height", "width"),
    "color": ("brightness", "contrast", "saturation", "hue"),
    "blur": ("sigma",),
}
WIDTH = 9 + 1  # number of target columns, with the flip


class Pairs(NamedTuple):
    """Features of both views [N, 2D] and the differences of their parameters [N, 10] (crop, color, blur, flip)."""

    features: Representation
    targets_NT: Tensor


def pairs(extract: Extractor, encoder: Encoder, split: Split, *, seed: int) -> Pairs:
    """Encodes two views of every image of a split under MoCo v2's policy, cached. seed: of the augmentations."""
    identity = split.images.digest(extract.folder)
    policy = ViewPolicy.moco_v2(encoder.size)
    key = cache.key_of("pairs-1", encoder.digest, repr(policy), str(seed), str(encoder.size), identity)

    def compute() -> Iterator[np.ndarray]:
        with Frozen(encoder, extract.device) as frozen:
            options = {"batch_size": extract.batch_size, "device": extract.device, "workers": extract.workers}
            for batch in view_batches(split, encoder, (policy, policy), seed=seed, **options):  # type: ignore[arg-type]
                target, _ = augself_targets(batch.params_VBP, batch.sizes_B2, (policy, policy), mode="fixed")
                both = [frozen.features(x_BCHW) for x_BCHW in batch.x_VBCHW]
                yield torch.cat([*both, flat(target)], 1).numpy()

    rows = extract.cached(key, len(split), compute(), f"{encoder.name} on views")
    return Pairs(Representation(encoder.name, rows[:, :-WIDTH], f"{identity} {seed}"), rows[:, -WIDTH:])


def flat(target: Targets) -> Tensor:
    """Concatenates the crop, color, blur and flip targets, [B, 10]."""
    return torch.cat([target.crop_B4, target.color_B4, target.blur_B1, target.flip_B1], 1)


def train_heads(
    x_ND: Tensor, targets_NT: Tensor, *, epochs: int = 30, batch_size: int = 256, lr: float = 1e-3, seed: int = 0
) -> AugSelfLoss:
    """Trains AugSelf's heads for crop, color, blur and flip on frozen features with AdamW; returned in evaluation mode.

    x_ND: features of both views side by side. targets_NT: as in `Pairs`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = AugSelfLoss(AugSelf(crop=1, color=1, blur=1, flip=1, mode="fixed"), x_ND.shape[1] // 2)
    scale = x_ND.std(0).clamp(min=1e-6)
    heads.register_buffer("scale_D", scale)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=lr, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(x_ND), generator=generator).split(batch_size):
            if len(index) > 1:
                f1, f2 = (x_ND[index] / scale).chunk(2, 1)
                ab = _unflat(targets_NT[index])
                losses = heads.losses(heads.predict(f1, f2), (ab, _swapped(ab)))
                optimizer.zero_grad(set_to_none=True)
                torch.stack(list(losses.values())).sum().backward()
                optimizer.step()
    return heads.eval()


@torch.no_grad()
def predict(heads: AugSelfLoss, x_ND: Tensor) -> Tensor:
    """Predictions for view 1 minus view 2, [N, 10]; the last column is the probability that both flips are equal."""
    f1, f2 = (x_ND / heads.get_buffer("scale_D")).chunk(2, 1)
    raw = {name: value[: len(x_ND)] for name, value in heads.predict(f1, f2).items()}
    return torch.cat([raw["crop"].tanh(), raw["color"].tanh(), raw["blur"].tanh(), raw["flip"].sigmoid()], 1)


def _unflat(rows_NT: Tensor) -> Targets:
    crop, color, blur, flip = rows_NT.split([4, 4, 1, 1], 1)
    unused = torch.zeros(len(rows_NT))
    return Targets(crop, color, flip, blur, unused.long(), unused[:, None])


def _swapped(ab: Targets) -> Targets:
    """The targets of views (2, 1) from those of views (1, 2).

    All differences change sign, except that dx, which is in the first view's frame, keeps its sign if the flips differ.
    """
    sign = torch.tensor([-1.0, -1.0, -1.0, -1.0]).repeat(len(ab.crop_B4), 1)
    sign[:, 1] = torch.where(ab.flip_B1[:, 0] > 0.5, -1.0, 1.0)
    return ab._replace(crop_B4=sign * ab.crop_B4, color_B4=-ab.color_B4, blur_B1=-ab.blur_B1)
