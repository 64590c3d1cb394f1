"""The contestants of `bench augment`, by kind of device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import batch_peers, nvidia_peers, ours, photo_peers
from .work import Maker, Ready, Work

AT_ONCE = 8  # views per call of peers that take one photo at a time


def one_by_one(work: Work, photos: Sequence[Any], view: Callable[[Any], np.ndarray | Tensor]) -> Ready:
    """Makes the views one by one, AT_ONCE per call, all views of a photo in a row."""
    position = 0

    def call() -> Tensor:
        nonlocal position
        chosen = [((position + i) // work.views) % len(photos) for i in range(AT_ONCE)]
        position += AT_ONCE
        return torch.stack([torch.as_tensor(view(photos[i])) for i in chosen])

    return Ready(call, AT_ONCE)


def pil(work: Work) -> Ready:
    return one_by_one(work, [Image.fromarray(x) for x in work.photos], photo_peers.pil(work.size))


def torchvision_v1(work: Work) -> Ready:
    return one_by_one(work, [Image.fromarray(x) for x in work.photos], photo_peers.torchvision_v1(work.size))


def torchvision_v2(work: Work) -> Ready:
    """torchvision v2, photo by photo, because it draws one set of parameters for a whole batch."""
    photos = list(work.pixels_BHWC.permute(0, 3, 1, 2).contiguous())
    return one_by_one(work, photos, photo_peers.torchvision_v2(work.size))


def opencv(work: Work) -> Ready:
    return one_by_one(work, work.photos, photo_peers.opencv(work.size))


def albumentationsx(work: Work) -> Ready:
    """AlbumentationsX with its defaults: its resize does not antialias."""
    return one_by_one(work, work.photos, photo_peers.albumentationsx(work.size))


def albumentationsx_area(work: Work) -> Ready:
    """AlbumentationsX with area_for_downscale="image", which averages areas when it shrinks a photo."""
    return one_by_one(work, work.photos, photo_peers.albumentationsx(work.size, "image"))


ON_CPU: dict[str, Maker] = {
    "pil": pil,
    "torchvision-v1": torchvision_v1,
    "torchvision-v2": torchvision_v2,
    "opencv": opencv,
    "albumentationsx": albumentationsx,
    "albumentationsx-area": albumentationsx_area,
    "kornia": batch_peers.kornia,
    "kornia-compiled": batch_peers.kornia_compiled,
    "oracle": ours.oracle,
    "oracle-batched": ours.oracle_batched,
    "oracle-compiled": ours.oracle_compiled,
}
ON_CUDA: dict[str, Maker] = {
    "fastaugself-triton-graph": ours.graphed,
    "torchvision-v2": torchvision_v2,
    "kornia": batch_peers.kornia,
    "kornia-compiled": batch_peers.kornia_compiled,
    "dali": nvidia_peers.dali,
    "cv-cuda": nvidia_peers.cvcuda,
    "oracle": ours.oracle,
    "oracle-batched": ours.oracle_batched,
    "oracle-compiled": ours.oracle_compiled,
}
WITHOUT_RESIZE: dict[str, Maker] = {
    "triton-augment": batch_peers.triton_augment,
    "triton-augment-float": batch_peers.triton_augment_float,
}
"""Peers without a random resized crop, with the operations they have."""

SLOW = ("kornia-compiled", "oracle-compiled", "oracle-batched", "torchvision-v2")
"""Peers that take too long to compile or to run for --quick."""

DISTRIBUTIONS = {
    "pil": "pillow",
    "torchvision": "torchvision",
    "opencv": "opencv-python-headless",
    "albumentationsx": "albumentationsx",
    "kornia": "kornia",
    "triton-augment": "triton-augment",
    "dali": "nvidia-dali-cuda120",
    "cv-cuda": "cvcuda-cu12",
}
"""Distributions whose versions are recorded."""
