"""Three FFCV pipelines for two views of a photo. All decode it twice, because each view has its own decoder.

The third is the design of FFCV-SSL: a crop decoder for each view, then compiled operations on uint8 images. FFCV-SSL's
own operations cannot be used (its crops are square, its seeded flip always flips, its blur needs a function that SciPy
has removed); those below compute the same as the other contestants', written like FFCV's. Needs FFCV to be imported.

Shape suffixes: B images of a batch, H W, C channels, N bytes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.libffcv import imdecode, memcpy
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.operation import Operation
from ffcv.pipeline.pipeline_spec import PipelineSpec
from ffcv.pipeline.state import State
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

from ..data.beton.format import JPEG
from .photo_peers import MEAN, STD

PHOTOS_IN_AN_EPOCH = 1 << 14  # FFCV allocates new buffers in every epoch, so short epochs would slow it down
BLUR_KERNEL = 23
_compiled = numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
_CALLBACK = numba.types.void(numba.types.CPointer(numba.uint8), numba.int64, numba.int64)


def make_loader(path: Path, batch: int, workers: int, samples: int, pipeline: Callable[[], list[Any]]) -> Loader:
    """A stock `ffcv.Loader` with two pipelines over one image field, in file order.

    samples: number of samples in the file; an epoch repeats them. pipeline: returns the operations of one view, decoder
    first.
    """
    views = [pipeline() for _ in range(2)]
    return Loader(
        str(path),
        batch_size=batch,
        num_workers=workers,
        os_cache=True,
        order=OrderOption.SEQUENTIAL,
        indices=np.tile(np.arange(samples), -(-PHOTOS_IN_AN_EPOCH // samples)),
        drop_last=True,
        pipelines={
            "image": views[0],
            "image2": PipelineSpec("image", decoder=views[1][0], transforms=views[1][1:]),
            "label": None,
        },
    )


def whole() -> list[Any]:
    """The decoded photo only."""
    return [WholeDecoder(), ToTensor()]


def crops(size: int) -> list[Any]:
    """FFCV's own random resized crop, uint8 [B, H, W, 3]."""
    return [RandomResizedCropRGBImageDecoder((size, size), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)), ToTensor()]


def views(size: int) -> list[Any]:
    """MoCo v2's augmentation in FFCV-SSL's design, float32 channels-last [B, 3, H, W]."""
    return [
        RandomResizedCropRGBImageDecoder((size, size), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
        PerImage(jitter),
        PerImage(gray),
        PerImage(blur),
        RandomHorizontalFlip(),
        NormalizeImage(MEAN * 255, STD * 255, np.float32),
        ToTensor(),
        ToTorchImage(),
    ]


class WholeDecoder(SimpleRGBImageDecoder):  # type: ignore[misc]
    """FFCV operation that decodes photos of any size into the rows of uint8 [B, N]; N bytes fit the largest."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        pixels = self.metadata["width"].astype(np.int64) * self.metadata["height"]
        shape, dtype = (int(pixels.max()) * 3,), np.dtype("u1")
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Any:
        read, decode_jpeg, copy = self.memory_read, Compiler.compile(imdecode), Compiler.compile(memcpy)
        prange = Compiler.get_iterator()

        def decode(batch_indices, photos_BN, metadata, storage_state):  # type: ignore[no-untyped-def]
            for i in prange(len(batch_indices)):
                sample = metadata[batch_indices[i]]
                h, w = np.uint32(sample["height"]), np.uint32(sample["width"])
                data = read(sample["data_ptr"], storage_state)
                if sample["mode"] == JPEG:
                    decode_jpeg(data, photos_BN[i], h, w, h, w, 0, 0, 1, 1, False, False)
                else:
                    copy(data, photos_BN[i])
            return photos_BN[: len(batch_indices)]

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


class PerImage(Operation):  # type: ignore[misc]
    """FFCV operation that modifies every uint8 image in place with a C callback (image [H, W, 3], H, W).

    The callback is compiled separately and cached; FFCV recompiles everything else in every process.
    """

    def __init__(self, change: Any):
        super().__init__()
        self._change = change

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        return replace(previous_state, jit_mode=True), None

    def generate_code(self) -> Any:
        options = {"fastmath": True, "error_model": "numpy", "cache": True}
        self._callback = numba.cfunc(_CALLBACK, **options)(self._change)  # must live as long as the code that calls it
        change, prange = self._callback.ctypes, Compiler.get_iterator()

        def apply(images_BHWC, _):  # type: ignore[no-untyped-def]
            for i in prange(len(images_BHWC)):
                change(images_BHWC[i].ctypes, images_BHWC.shape[1], images_BHWC.shape[2])
            return images_BHWC

        apply.is_parallel = True  # type: ignore[attr-defined]
        return apply


@_compiled
def _to_byte(value):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)) + np.float32(0.5))


@_compiled
def _luma(r, g, b):  # type: ignore[no-untyped-def]
    return np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b


@_compiled
def brightness(x_HWC, factor):  # type: ignore[no-untyped-def]
    """torchvision's adjust_brightness, in place."""
    flat = x_HWC.reshape(-1)
    for i in range(len(flat)):
        flat[i] = _to_byte(np.float32(flat[i]) * factor)


@_compiled
def contrast(x_HWC, factor):  # type: ignore[no-untyped-def]
    """torchvision's adjust_contrast, in place."""
    flat = x_HWC.reshape(-1, 3)
    total = np.float32(0)
    for i in range(len(flat)):
        total += _luma(np.float32(flat[i, 0]), np.float32(flat[i, 1]), np.float32(flat[i, 2]))
    offset = (np.float32(1) - factor) * total / np.float32(len(flat))
    values = x_HWC.reshape(-1)
    for i in range(len(values)):
        values[i] = _to_byte(np.float32(values[i]) * factor + offset)


@_compiled
def saturation(x_HWC, factor):  # type: ignore[no-untyped-def]
    """torchvision's adjust_saturation, in place; 0 is its rgb_to_grayscale."""
    flat = x_HWC.reshape(-1, 3)
    for i in range(len(flat)):
        r, g, b = np.float32(flat[i, 0]), np.float32(flat[i, 1]), np.float32(flat[i, 2])
        rest = (np.float32(1) - factor) * _luma(r, g, b)
        flat[i, 0] = _to_byte(r * factor + rest)
        flat[i, 1] = _to_byte(g * factor + rest)
        flat[i, 2] = _to_byte(b * factor + rest)


@_compiled
def hue(x_HWC, turns):  # type: ignore[no-untyped-def]
    """torchvision's adjust_hue, in place: rotates the angle in the hexcone, keeps value and chroma."""
    flat = x_HWC.reshape(-1, 3)
    for i in range(len(flat)):
        r, g, b = np.float32(flat[i, 0]), np.float32(flat[i, 1]), np.float32(flat[i, 2])
        value = max(r, g, b)
        chroma = value - min(r, g, b)
        safe = chroma if chroma > 0 else np.float32(1)
        if value == r:
            sixth = (g - b) / safe
        elif value == g:
            sixth = np.float32(2) + (b - r) / safe
        else:
            sixth = np.float32(4) + (r - g) / safe
        sixth += np.float32(6) * turns
        for c in range(3):
            k = sixth + np.float32(5 - 2 * c)
            k -= np.float32(6) * np.floor(k / np.float32(6))
            flat[i, c] = _to_byte(value - chroma * max(np.float32(0), min(k, np.float32(4) - k, np.float32(1))))


@_compiled
def gaussian_blur(x_HWC, sigma):  # type: ignore[no-untyped-def]
    """torchvision's gaussian_blur with 23 taps, reflecting at the borders, in place."""
    H, W, C = x_HWC.shape
    reach = BLUR_KERNEL // 2
    weights = np.empty(BLUR_KERNEL, np.float32)
    for t in range(BLUR_KERNEL):
        weights[t] = np.exp(-0.5 * ((t - reach) / sigma) ** 2)
    weights /= weights.sum()
    rows = np.empty((H, W * C), np.float32)
    padded = np.empty((W + 2 * reach) * C, np.float32)
    for y in range(H):
        for x in range(-reach, W + reach):
            source = abs(x) if x < W else 2 * (W - 1) - x
            for c in range(C):
                padded[(x + reach) * C + c] = x_HWC[y, source, c]
        rows[y] = 0
        for t in range(BLUR_KERNEL):
            _add(rows[y], weights[t], padded[t * C : t * C + W * C])
    line = np.empty(W * C, np.float32)
    flat = x_HWC.reshape(H, W * C)
    for y in range(H):
        line[:] = 0
        for t in range(BLUR_KERNEL):
            source = abs(y + t - reach)
            source = source if source < H else 2 * (H - 1) - source
            _add(line, weights[t], rows[source])
        for i in range(W * C):
            flat[y, i] = _to_byte(line[i])


@_compiled
def _add(total, weight, values):  # type: ignore[no-untyped-def]
    for i in range(len(total)):
        total[i] += weight * values[i]


def jitter(pixels, H, W):  # type: ignore[no-untyped-def]
    """Brightness, contrast, saturation (0.6 to 1.4) and hue (0.1 turns) in random order, with probability 0.8."""
    if np.random.rand() >= 0.8:
        return
    x_HWC = numba.carray(pixels, (H, W, 3))
    order_4 = np.random.permutation(4)
    for op in order_4:
        factor = np.float32(np.random.uniform(0.6, 1.4))
        if op == 0:
            brightness(x_HWC, factor)
        elif op == 1:
            contrast(x_HWC, factor)
        elif op == 2:
            saturation(x_HWC, factor)
        else:
            hue(x_HWC, np.float32(np.random.uniform(-0.1, 0.1)))


def gray(pixels, H, W):  # type: ignore[no-untyped-def]
    """Grayscale with probability 0.2."""
    if np.random.rand() < 0.2:
        saturation(numba.carray(pixels, (H, W, 3)), np.float32(0))


def blur(pixels, H, W):  # type: ignore[no-untyped-def]
    """Gaussian blur of sigma 0.1 to 2 with probability 0.5."""
    if np.random.rand() < 0.5:
        gaussian_blur(numba.carray(pixels, (H, W, 3)), np.random.uniform(0.1, 2.0))
