"""Many images for an encoder, in threads; and coordinates in what the encoder sees.

Shape suffixes: B batch, C channels, H W, T target columns, N samples, 2 = (width, height).
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.cores import available_cores
from ..data.parallel import ordered_map
from .splits import Floats, Images

R = TypeVar("R")


def to_frame(points_NT: Floats, sizes_N2: NDArray[np.float64], size: int, resize: int) -> Floats:
    """Converts pixel coordinates of images to fractions of the square that the encoder sees, float64 [N, T].

    points_NT: (x, y, x, y, ...) in pixels of the original image. sizes_N2: (width, height) of the images. size, resize:
    as in `prepare`. Points outside the central crop are below 0 or above 1.
    """
    width_N, height_N = sizes_N2.T
    short_N = np.minimum(width_N, height_N)
    new_N2 = np.where(sizes_N2 == short_N[:, None], resize, np.floor(resize * sizes_N2 / short_N[:, None]))
    offset_N2 = np.round((new_N2 - size) / 2)
    points_NK2 = points_NT.reshape(len(points_NT), -1, 2)
    framed = (points_NK2 * (new_N2 / sizes_N2)[:, None] - offset_N2[:, None]) / size
    return framed.reshape(points_NT.shape)


def in_threads(call: Callable[[int], R], indices: Sequence[int], *, workers: int = 0, ahead: int = 64) -> Generator[R]:
    """`call(index)` for every index, in order; `workers` threads (0: one per core), at most `ahead` results ahead."""
    return ordered_map(call, indices, workers=workers or available_cores(), ahead=ahead)


def batches(
    images: Images, prepared: Callable[[Image.Image], NDArray[np.uint8]], *, batch_size: int, workers: int = 0
) -> Iterator[Tensor]:
    """Yields the prepared images in order, uint8 [B, H, W, C]. workers: decoding threads, 0 = one per core."""
    stream = in_threads(lambda i: prepared(images.open(i)), range(len(images)), workers=workers, ahead=2 * batch_size)
    while chunk := list(itertools.islice(stream, batch_size)):
        yield torch.from_numpy(np.stack(chunk))
