"""One image for an encoder: resize of the shorter side with PIL, central crop, normalisation.

Shape suffixes: B batch, C channels, H W, 2 = (width, height).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Color = tuple[float, float, float]
Filter = Literal["bicubic", "bilinear", "nearest"]
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def prepare(image: Image.Image, size: int, resize: int, filter: Filter = "bicubic") -> NDArray[np.uint8]:
    """Resizes the shorter side to `resize` pixels and crops the central `size` x `size` pixels, uint8 [size, size, 3].

    A mask (mode L, with filter "nearest") gives the same crop, uint8 [size, size]. Equal to torchvision's
    Resize(resize, filter) and CenterCrop(size) on a PIL image.
    """
    width, height = resized(image.size, resize)
    if (width, height) != image.size:
        image = image.resize((width, height), FILTERS[filter])
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def resized(size: tuple[int, int], resize: int) -> tuple[int, int]:
    """(width, height) of an image of size (width, height) after its shorter side is resized to `resize` pixels."""
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def normalise(x_BHWC: Tensor, mean: Color, std: Color) -> Tensor:
    """Normalises images: uint8 [B, H, W, C] to float32 [B, C, H, W] in channels-last memory format."""
    x = x_BHWC.permute(0, 3, 1, 2).to(torch.float32).div_(255)
    shape = (1, 3, 1, 1)
    return x.sub_(torch.tensor(mean, device=x.device).view(shape)).div_(torch.tensor(std, device=x.device).view(shape))
