"""Peers that augment batches: Kornia, and triton-augment with the operations it has.

Each maker imports its library (ImportError says what to install) and turns uint8 photos into normalised float32 views,
like `photo_peers`; docstrings say where a library differs. triton-augment needs a GPU, and is called as in the source
code of its version 0.3.
"""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from .work import Ready, Work

KORNIA_BATCH = 32  # on a CPU: larger ones leave its caches


def _per_view(work: Work, batch: int, transform: Callable[[Tensor], Tensor]) -> Ready:
    """One call of `transform` per view of a batch of uint8 [B, 3, H, W]."""
    batches = work.pixels_BHWC.permute(0, 3, 1, 2).contiguous().split(min(batch, work.batch))
    position = 0

    def call() -> Tensor:
        nonlocal position
        position += 1
        pixels = batches[position % len(batches)] if len(batches[-1]) == len(batches[0]) else batches[0]
        with torch.no_grad():
            return torch.cat([transform(pixels.float().div_(255)) for _ in range(work.views)])

    return Ready(call, work.views * len(batches[0]))


def kornia(work: Work) -> Ready:
    """Kornia. Its resize does not antialias, and all images of a batch share one order of the jitter."""
    return _per_view(work, _kornia_batch(work), _kornia(work))


def kornia_compiled(work: Work) -> Ready:
    """Kornia under torch.compile, with a graph break wherever it reads values on the host."""
    return _per_view(work, _kornia_batch(work), torch.compile(_kornia(work), dynamic=False))


def _kornia_batch(work: Work) -> int:
    return work.batch if work.device.type == "cuda" else KORNIA_BATCH


def _kornia(work: Work) -> Callable[[Tensor], Tensor]:
    try:
        import kornia.augmentation as K
    except ImportError as error:
        raise ImportError(f"pip install --no-deps kornia kornia-rs ({error})") from None
    return K.AugmentationSequential(
        K.RandomResizedCrop((work.size, work.size), scale=(0.2, 1.0)),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5),
        K.RandomHorizontalFlip(p=0.5),
        K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
        data_keys=["input"],
        same_on_batch=False,
    ).to(work.device)


def triton_augment(work: Work) -> Ready:
    """triton-augment: crop without resize, flip, brightness, contrast about 0.5, saturation in this order, gray."""
    return _per_view(work, work.batch, _triton_augment(work))


def triton_augment_float(work: Work) -> Ready:
    """triton-augment from photos that are floats in [0, 1] already, as in its own benchmark."""
    transform = _triton_augment(work)
    x = work.pixels_BHWC.permute(0, 3, 1, 2).contiguous().float().div_(255)
    return Ready(lambda: torch.cat([transform(x) for _ in range(work.views)]), work.views * work.batch)


def _triton_augment(work: Work) -> Callable[[Tensor], Tensor]:
    os.environ.setdefault("TRITON_AUGMENT_SUPPRESS_FIRST_RUN_MESSAGE", "1")
    try:
        import triton_augment
    except ImportError as error:
        raise ImportError(f"pip install --no-deps triton-augment ({error})") from None
    policy = work.policy
    return triton_augment.TritonFusedAugment(
        crop_size=work.size,
        horizontal_flip_p=policy.flip,
        brightness=policy.brightness,
        contrast=policy.contrast,
        saturation=policy.saturation,
        grayscale_p=policy.gray,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
