"""MoCo v2's augmentation of one photo with PIL, torchvision, OpenCV and AlbumentationsX.

Each maker imports its library (ImportError says what to install) and returns a function from one photo to one view,
float32 [3, size, size], normalised with ImageNet's mean and standard deviation: random resized crop (scale 0.2 to 1),
jitter (0.4, 0.4, 0.4, 0.1) in random order with probability 0.8, gray 0.2, blur (sigma 0.1 to 2) 0.5, flip 0.5.
Every view has new parameters. `pil` and `torchvision_v1` take PIL images, the others uint8 [H, W, 3].
"""

import importlib
import math
import os
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
ArrayView = Callable[[np.ndarray], np.ndarray]
_defined: list[torch.library.Library] = []  # operators live as long as their Library object


def crop(height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params in plain Python: (top, left, height, width) in pixels."""
    for _ in range(10):
        area = height * width * random.uniform(0.2, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def pil(size: int) -> Callable[[Image.Image], np.ndarray]:
    """MoCo's pipeline with PIL operations, without torchvision's wrappers."""

    def hue(picture: Image.Image, turns: float) -> Image.Image:
        h, s, v = picture.convert("HSV").split()
        shifted = Image.fromarray(np.asarray(h) + np.uint8(int(turns * 255) % 256))
        return Image.merge("HSV", (shifted, s, v)).convert("RGB")

    def view(picture: Image.Image) -> np.ndarray:
        top, left, h, w = crop(picture.height, picture.width)
        x = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        if random.random() < 0.8:
            for op in random.sample(range(4), 4):
                factor = random.uniform(0.6, 1.4)
                if op == 0:
                    x = ImageEnhance.Brightness(x).enhance(factor)
                elif op == 1:
                    x = ImageEnhance.Contrast(x).enhance(factor)
                elif op == 2:
                    x = ImageEnhance.Color(x).enhance(factor)
                else:
                    x = hue(x, random.uniform(-0.1, 0.1))
        if random.random() < 0.2:
            x = x.convert("L").convert("RGB")
        if random.random() < 0.5:
            x = x.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        if random.random() < 0.5:
            x = x.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        array = (np.asarray(x, np.float32) / 255 - MEAN) / STD
        return np.ascontiguousarray(array.transpose(2, 0, 1))

    return view


def torchvision(module: str) -> ModuleType:
    """torchvision's `module`, such as "transforms.v2".

    With a build of torch that does not match, torchvision's compiled operators do not load and the import fails,
    although the transforms need none of them. This defines the two operators that the import asks for.
    """
    try:
        return importlib.import_module(f"torchvision.{module}")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _defined:
            raise
    _defined.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in ("nms", "qnms"):
        _defined[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module(f"torchvision.{module}")


def torchvision_v1(size: int) -> Callable[[Image.Image], Tensor]:
    """MoCo v2's published recipe: torchvision's v1 transforms on PIL images, and PIL's blur."""
    T = torchvision("transforms")

    def blur(picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    return T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.2, 1.0)),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomApply([T.Lambda(blur)], p=0.5),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def torchvision_v2(size: int, device: torch.device | None = None) -> Callable[[Tensor], Tensor]:
    """torchvision's v2 transforms on one uint8 tensor [3, H, W] of `device`."""
    T = torchvision("transforms.v2")
    return T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=0.5),
            T.RandomHorizontalFlip(),
            T.ToDtype(torch.float32, scale=True),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def opencv(size: int) -> ArrayView:
    """Hand-optimised uint8 code with OpenCV and look-up tables."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"pip install opencv-python-headless ({error})") from None
    cv2.setNumThreads(0)
    ramp = np.arange(256, dtype=np.float32)
    normalise = ((ramp[:, None] / 255 - MEAN) / STD).reshape(1, 256, 3)

    def view(photo: np.ndarray) -> np.ndarray:
        top, left, h, w = crop(*photo.shape[:2])
        shrinks = h > size and w > size
        flag = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        x = cv2.resize(photo[top : top + h, left : left + w], (size, size), interpolation=flag)
        if random.random() < 0.8:
            for op in random.sample(range(4), 4):
                factor = random.uniform(0.6, 1.4)
                if op == 0:
                    x = cv2.convertScaleAbs(x, alpha=factor)
                elif op == 1:
                    luma = float(np.dot(cv2.mean(x)[:3], (0.299, 0.587, 0.114)))
                    x = cv2.LUT(x, np.clip(ramp * factor + (1 - factor) * luma, 0, 255).astype(np.uint8))
                elif op == 2:
                    gray = cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
                    x = cv2.addWeighted(x, factor, gray, 1 - factor, 0)
                else:
                    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV_FULL)
                    shifted = cv2.extractChannel(hsv, 0) + np.uint8(int(random.uniform(-0.1, 0.1) * 255) % 256)
                    x = cv2.cvtColor(cv2.insertChannel(shifted, hsv, 0), cv2.COLOR_HSV2RGB_FULL)
        if random.random() < 0.2:
            x = cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if random.random() < 0.5:
            x = cv2.GaussianBlur(x, (23, 23), random.uniform(0.1, 2.0))
        if random.random() < 0.5:
            x = cv2.flip(x, 1)
        return np.ascontiguousarray(cv2.LUT(x, normalise).transpose(2, 0, 1))

    return view


def albumentationsx(size: int, area_for_downscale: str | None = None) -> ArrayView:
    """AlbumentationsX; with `area_for_downscale="image"` it antialiases when it shrinks, by default it does not."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # disables its check for a newer version
    try:
        import albumentations as A
        import cv2
    except ImportError as error:
        raise ImportError(f"pip install albumentationsx ({error})") from None
    cv2.setNumThreads(0)
    span = (0.6, 1.4)
    antialias: dict[str, Any] = {} if area_for_downscale is None else {"area_for_downscale": area_for_downscale}
    pipeline = A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=(0.2, 1.0), **antialias),
            A.ColorJitter(span, span, span, (-0.1, 0.1), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur((23, 23), (0.1, 2.0), p=0.5),
            A.HorizontalFlip(p=0.5),
            A.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ],
        seed=0,
    )
    return lambda photo: np.ascontiguousarray(pipeline(image=photo)["image"].transpose(2, 0, 1))
