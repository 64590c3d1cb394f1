"""A frozen encoder, and images of any kind as its input.

Shape suffixes: N images, B batch, C channels, H W, D features.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..data.cores import available_cores
from ..data.inputs.opening import read_rgb, upright_rgb
from ..data.parallel import ordered_map
from ..errors import UsageError
from .pixels import Color, normalise, prepare


class Encoder(nn.Module):
    """A frozen backbone in evaluation mode: normalised images [B, 3, size, size] to pooled features [B, num_features].

    name: short name for tables. source: the spec it was loaded from, without label. module: the backbone. size: side
    of its input images in pixels. mean, std: of the normalisation, in [0, 1]. digest: hash of everything besides the
    images that determines its features (weights, architecture, input size, normalisation).
    """

    def __init__(self, name: str, source: str, module: nn.Module, size: int, mean: Color, std: Color, digest: str):
        super().__init__()
        self.name, self.source, self.module = name, source, module
        self.size, self.mean, self.std, self.digest = size, mean, std, digest

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features [B, num_features] of normalised images."""
        f_BD = self.module(x_BCHW)
        if not isinstance(f_BD, Tensor):
            raise UsageError(f"{self.name} returns {type(f_BD).__name__}, expected one tensor of features")
        return f_BD.flatten(1)

    @cached_property
    def num_features(self) -> int:
        """Number of features of an image."""
        parameter = next(self.parameters(), None)
        with torch.inference_mode():
            x_BCHW = torch.zeros(1, 3, self.size, self.size, device=None if parameter is None else parameter.device)
            return int(self(x_BCHW).shape[1])

    def transform(self, image: Any) -> Tensor:
        """The normalised input float32 [3, size, size] of one image, prepared as `fastaugself eval` does.

        The shorter side is resized (bicubic), then the centre is cropped. image: a path, a PIL image, a uint8 array
        [H, W, 3] or [H, W], or a uint8 tensor [3, H, W] or [H, W, 3]. Raises UsageError for anything else, RunError
        for a file that cannot be read.
        """
        return normalise(torch.from_numpy(self._pixels(image).copy())[None], self.mean, self.std)[0]

    def embed(self, images: Any, *, batch_size: int = 64, workers: int = 0) -> Tensor:
        """Features float32 [N, num_features] on the CPU, computed on the encoder's device.

        images: an iterable of images as `transform` takes them (one batch is in memory at a time), or a float tensor
        [N, 3, H, W] that is already normalised. workers: threads that read and resize, 0 for one per core.
        Raises as `transform`.
        """
        if isinstance(images, str | os.PathLike | Image.Image):
            raise UsageError(f"embed takes several images, got one {type(images).__name__}: pass [image]")
        parameter = next(self.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        found = [torch.empty(0, 0)]
        with torch.inference_mode():
            for x_BCHW in self._batches(images, batch_size, workers or available_cores()):
                found.append(self(x_BCHW.to(device)).float().cpu())
        return torch.cat(found[1:]) if len(found) > 1 else torch.empty(0, self.num_features)

    def _batches(self, images: Any, batch_size: int, workers: int) -> Iterator[Tensor]:
        """Normalised images [B, 3, H, W]."""
        if isinstance(images, Tensor) and images.is_floating_point():
            if images.ndim != 4 or images.shape[1] != 3:
                raise UsageError(f"normalised images must be [N, 3, H, W], got {list(images.shape)}")
            yield from images.split(batch_size)
            return
        prepared = ordered_map(self._pixels, _iterable(images), workers=workers, ahead=2 * batch_size)
        while chunk := list(itertools.islice(prepared, batch_size)):
            yield normalise(torch.from_numpy(np.stack(chunk)), self.mean, self.std)

    def _pixels(self, image: Any) -> NDArray[np.uint8]:
        return prepare(as_image(image), self.size, self.size)

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, {self.source!r}, size={self.size})"


def as_image(image: Any) -> Image.Image:
    """A path, PIL image, uint8 array or uint8 tensor as an RGB image.

    Raises UsageError for anything else, RunError for a file that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return read_rgb(Path(image))
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, Tensor):
        image = image.cpu().numpy()
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
            image = image.transpose(1, 2, 0)
    if not isinstance(image, np.ndarray):
        raise UsageError(f"an image must be a path, a PIL image, an array or a tensor, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise UsageError(
            f"an image must be uint8 [H, W, 3] or [H, W], got {image.dtype} {list(image.shape)}: pass pixels from 0 to "
            "255, or a batch that is already normalised as one float tensor [N, 3, H, W]"
        )
    return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).convert("RGB")


def _iterable(images: Any) -> Iterable[Any]:
    try:
        iter(images)
    except TypeError:
        raise UsageError(f"embed takes images, got {type(images).__name__}: pass a list of paths or images") from None
    return cast(Iterable[Any], images)
