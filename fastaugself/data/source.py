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
_SIZES = 8  # of buffers, between a power of two and the next: only those of one size can serve again


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
    """A buffer for images of these sizes that nobody else refers to, and where each begins.

    It is memory of an earlier batch where one has gone: to touch fresh pages costs a third of decoding into them.
    pin: page-locked memory, from PyTorch's caching host allocator. It gives a block out again only after the copies
    that read from it have passed (it records an event with each): a ring of buffers without our keeping one.
    """
    bytes_B = sizes_B2[:, 0].astype(np.int64) * sizes_B2[:, 1] * 3
    ends_B = np.cumsum(-(-bytes_B // _ALIGNMENT) * _ALIGNMENT)
    offsets_B = np.concatenate([np.zeros(1, np.int64), ends_B[:-1]])
    size = int(ends_B[-1])
    pixels = torch.empty(size, dtype=torch.uint8, pin_memory=True) if pin else _used_again(size)
    view = pixels.numpy()
    for start, stop in zip(offsets_B + bytes_B, ends_B, strict=True):
        view[start:stop] = 0
    return pixels, offsets_B


def _used_again(size: int) -> Tensor:
    from fastaugself_kernels.numba.memory import empty  # here, since it imports numba, which pinned memory needs not

    step = max(1, (1 << size.bit_length() - 1) // _SIZES)
    return empty(-(-size // step) * step, dtype=torch.uint8)[:size]
