"""What both readers hand over: one batch of images, each decoded once, packed back to back in one buffer.

Shape suffixes: B images of a batch, N samples or bytes, 2 = (height, width).
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16  # bytes, of every image's start: lets kernels load whole vectors


class Packed(NamedTuple):
    """pixels: uint8 [N] on the CPU, tight HWC RGB images at `offsets_B`; the bytes between two images are 0.

    offsets_B: int64. ids_B: int64. failed: positions in the batch of the images that could not be decoded; their pixels
    are undefined. The buffer belongs to whoever receives it and is never written again.
    """

    pixels: Tensor
    offsets_B: NDArray[np.int64]
    ids_B: NDArray[np.int64]
    failed: list[int]


class Source(Protocol):
    """A reader of one `.beton` file."""

    def batches(self, ids: Iterator[NDArray[np.int64]]) -> Generator[Packed]:
        """Decodes the samples of every array that `ids` yields, a few batches ahead of the consumer.

        Closing the generator ends its threads before it returns; an exception in one of them reaches the consumer.
        """
        ...

    def close(self) -> None:
        """Lets go of what the source opened."""
        ...


def allocate(sizes_B2: NDArray[np.int32], *, pin: bool) -> tuple[Tensor, NDArray[np.int64]]:
    """A fresh buffer for images of these sizes, and where each begins.

    pin: page-locked memory, from PyTorch's caching host allocator. It gives a block out again only after the copies
    that read from it have passed (it records an event with each): a ring of buffers without our keeping one.
    """
    bytes_B = sizes_B2[:, 0].astype(np.int64) * sizes_B2[:, 1] * 3
    ends_B = np.cumsum(-(-bytes_B // _ALIGNMENT) * _ALIGNMENT)
    offsets_B = np.concatenate([np.zeros(1, np.int64), ends_B[:-1]])
    pixels = torch.empty(int(ends_B[-1]), dtype=torch.uint8, pin_memory=pin)
    view = pixels.numpy()
    for start, stop in zip(offsets_B + bytes_B, ends_B, strict=True):
        view[start:stop] = 0
    return pixels, offsets_B
