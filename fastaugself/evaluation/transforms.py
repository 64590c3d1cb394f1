"""The synthetic transforms of Ericsson 2021 (arXiv 2111.11398, section 4) with their ranges, on PIL images.

They reproduce the published code with its quirks, for comparable numbers: translation and scale also shear by 1 degree,
crop boxes are in pixels of the photo regardless of its size, and `deform` (an elastic transform at its library's
defaults) is in effect a random affine map that moves three points by up to 50 pixels. Conventions are torchvision's:
nearest resampling, black fill, rotation about the centre.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from ..errors import UsageError
from .pixels import prepare

Value = tuple[float, ...]
Apply = Callable[[Image.Image, Value], Image.Image]


@dataclass(frozen=True)
class Transform:
    """A transform with its parameter values.

    name: as published. identity: positions of the values that change nothing. cropped: the result already has the
    encoder's input size, so that resize and central crop are skipped.
    """

    name: str
    values: tuple[Value, ...]
    identity: tuple[int, ...]
    apply: Apply
    cropped: bool = False

    def __call__(self, image: Image.Image, index: int, *, size: int, resize: int) -> NDArray[np.uint8]:
        """The image transformed with value `index` and preprocessed for the encoder, uint8 [size, size, 3]."""
        changed = self.apply(image, self.values[index])
        if self.cropped:
            return np.asarray(changed)
        return prepare(changed, size, resize, "bilinear")


def transforms(count: int, *, size: int, resize: int, names: Sequence[str] = ()) -> list[Transform]:
    """The 18 transforms, or those of `names`, each with about `count` values over its published range.

    count: 256 as published; grids of two or four parameters use the next smaller square or fourth power. size, resize:
    input size and shorter side in pixels. Raises UsageError for an unknown name and for fewer than two values.
    """
    if count < 2:
        raise UsageError(f"--values must be at least 2, got {count}")
    every = {t.name: t for t in _all(count, size, resize)}
    unknown = [name for name in names if name not in every]
    if unknown:
        raise UsageError(f"unknown transform {unknown[0]}; pass some of {', '.join(every)}")
    return [every[name] for name in names or every]


def _all(count: int, size: int, resize: int) -> list[Transform]:
    square, fourth = max(2, math.isqrt(count)), max(2, math.isqrt(math.isqrt(count)))
    space = (resize - size) / 2
    shift = _line(-space, space, square + 1)[:-1]
    slope = _line(-160, 160, square + 1)[:-1]
    corner, side = _line(0, 0.25 * resize, fourth), _line(0.75 * resize, 0.25 * resize, fourth)

    def enhancer(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Apply:
        return lambda image, value: kind(image).enhance(value[0])

    def switch(change: Callable[[Image.Image], Image.Image]) -> Apply:
        return lambda image, value: change(image) if value[0] else image

    def resized_crop(image: Image.Image, value: Value) -> Image.Image:
        top, left, height, width = value
        edges = (left, top, left + width, top + height)  # fractions of a pixel, which PIL rounds as published
        return image.crop(edges).resize((size, size), Image.Resampling.BILINEAR)

    on_off: list[Value] = [(0.0,), (1.0,)]
    made = [
        _make("rotation", [(v,) for v in _line(0, 360, count + 1)[:-1]], (0.0,), lambda i, v: i.rotate(v[0])),
        _make(
            "translation",
            list(itertools.product(shift, shift)),
            (0.0, 0.0),
            lambda i, v: affine(i, translate=(v[0], v[1]), shear=(1.0, 0.0)),
        ),
        _make(
            "scale", [(v,) for v in _line(0.25, 2, count)], (1.0,), lambda i, v: affine(i, scale=v[0], shear=(1.0, 0.0))
        ),
        _make("shear", list(itertools.product(slope, slope)), (0.0, 0.0), lambda i, v: affine(i, shear=(v[0], v[1]))),
        _make("resized_crop", list(itertools.product(corner, corner, side, side)), None, resized_crop, cropped=True),
        _make("h_flip", on_off, (0.0,), switch(ImageOps.mirror)),
        _make("v_flip", on_off, (0.0,), switch(ImageOps.flip)),
        _make("deform", [(float(v),) for v in range(count)], None, _deform),
        _make("grayscale", on_off, (0.0,), switch(lambda i: i.convert("L").convert("RGB"))),
        _make("brightness", [(v,) for v in _line(0.25, 5, count)], (1.0,), enhancer(ImageEnhance.Brightness)),
        _make("contrast", [(v,) for v in _line(0.25, 5, count)], (1.0,), enhancer(ImageEnhance.Contrast)),
        _make("saturation", [(v,) for v in _line(0.25, 5, count)], (1.0,), enhancer(ImageEnhance.Color)),
        _make("hue", [(v,) for v in _line(-0.5, 0.5, count)], (0.0,), _hue),
        _make("blur", [(v,) for v in _line(1e-5, 20, count)], (1e-5,), _blur(size // 20 * 2 + 1)),
        _make("sharpness", [(v,) for v in _line(1, 30, count)], (1.0,), enhancer(ImageEnhance.Sharpness)),
        _make("invert", on_off, (0.0,), switch(ImageOps.invert)),
        _make("equalize", on_off, (0.0,), switch(ImageOps.equalize)),
        _make("posterize", [(float(b),) for b in range(1, 8)], None, lambda i, v: ImageOps.posterize(i, int(v[0]))),
    ]
    return made


def _make(
    name: str, values: Sequence[Value], identity: Value | None, apply: Apply, *, cropped: bool = False
) -> Transform:
    same = [i for i, v in enumerate(values) if identity is not None and np.allclose(v, identity, rtol=0, atol=1e-6)]
    return Transform(name, tuple(values), tuple(same), apply, cropped)


def _line(low: float, high: float, count: int) -> list[float]:
    return [float(v) for v in np.linspace(low, high, count)]


def affine(
    image: Image.Image,
    *,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
) -> Image.Image:
    """Affine map about the image's centre: angle and shear along x and y in degrees, translation in pixels."""
    rotation, sx, sy = (math.radians(v) for v in (angle, *shear))
    # Linear part of the map from input to output, without the scale: the shears, then the rotation.
    a = math.cos(rotation - sy) / math.cos(sy)
    b = -math.cos(rotation - sy) * math.tan(sx) / math.cos(sy) - math.sin(rotation)
    c = math.sin(rotation - sy) / math.cos(sy)
    d = -math.sin(rotation - sy) * math.tan(sx) / math.cos(sy) + math.cos(rotation)
    inverse = np.array([[d, -b], [-c, a]]) / scale
    center = np.array(image.size) * 0.5
    offset = center - inverse @ (center + np.array(translate))
    coefficients = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


def _deform(image: Image.Image, value: Value) -> Image.Image:
    """A random affine map with seed `value`; the image is reflected at its borders."""
    width, height = image.size
    center, arm = np.array([width, height]) // 2, min(width, height) // 3
    source = np.array([center + arm, [center[0] + arm, center[1] - arm], center - arm], np.float64)
    moved = source + np.random.default_rng(int(value[0])).uniform(-50, 50, (3, 2))
    pad = min(width, height) // 2
    mirrored = np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    ones = np.ones((3, 1))
    try:  # from output to input pixels
        matrix = np.linalg.solve(np.concatenate([moved, ones], 1), source)
    except np.linalg.LinAlgError:
        return image
    (a, d), (b, e), (c, f) = matrix
    wide = Image.fromarray(mirrored)
    coefficients = (a, b, c + pad, d, e, f + pad)
    return wide.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def _hue(image: Image.Image, value: Value) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(int(value[0] * 255) % 256)  # wraps around
    return Image.fromarray(hsv, "HSV").convert("RGB")


def _blur(kernel: int) -> Apply:
    """Gaussian blur with a kernel of `kernel` pixels, reflected at the borders."""
    taps = np.arange(kernel) - kernel // 2

    def apply(image: Image.Image, value: Value) -> Image.Image:
        weights = np.exp(-0.5 * (taps / value[0]) ** 2)
        weights /= weights.sum()
        pixels = np.asarray(image, np.float32)
        for axis in (0, 1):
            length = pixels.shape[axis]
            padded = np.take(pixels, _mirror(np.arange(-(kernel // 2), length + kernel // 2), length), axis)
            shifted = (np.take(padded, np.arange(k, k + length), axis) * w for k, w in enumerate(weights) if w > 1e-9)
            pixels = sum(shifted, np.zeros_like(pixels))
        return Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))

    return apply


def _mirror(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    period = max(2 * (length - 1), 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)
