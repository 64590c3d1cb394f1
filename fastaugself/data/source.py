"""What every reader hands over: one batch of images, each decoded once, packed back to back in one buffer.

Shape suffixes: B images of a batch, N samples or bytes, 2 = (height, width).
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # `fastaugself info` and `verify` decode without torch
    from torch import Tensor

Decode = Literal["cpu", "nvimgcodec"]  # who decodes

AHEAD = 3  # batches that are decoded ahead of the consumer
_SIZES = 8  # of buffers, between a power of two and the next: only those of one size can serve again
_ALIGNMENT = 16  # bytes, of every image's start: lets kernels load whole vectors


class Packed(NamedTuple):
    """pixels: uint8 [N], tight HWC RGB images at `offsets_B`; the bytes between two images are 0.

    offsets_B: int64. ids_B: int64. failed: positions in the batch of the images that could not be decoded; their pixels
    are undefined. On the CPU, unless the source decodes on the device.
    """

    pixels: "Tensor"
    offsets_B: NDArray[np.int64]
    ids_B: NDArray[np.int64]
    failed: list[int]


class Buffers(Protocol):
    """Where the memory of batches comes from."""

    def empty(self, count: int) -> "Tensor":
        """uint8 [count] on the CPU, undefined; may wait until there is room."""
        ...

    def exchange(self, old: "Tensor", count: int) -> "Tensor":
        """As `empty`, in place of `old`, which has not been handed on yet: never waits."""
        ...


class OwnMemory:
    """Memory that belongs to whoever receives it.

    It is that of an earlier batch where nobody refers to it any more: to touch fresh pages costs a third of decoding
    into them.
    """

    def empty(self, count: int) -> "Tensor":
        """See Buffers."""
        import torch

        from fastaugself_kernels.memory import empty

        step = max(1, (1 << count.bit_length() - 1) // _SIZES)
        return empty(-(-count // step) * step, dtype=torch.uint8)[:count]

    def exchange(self, old: "Tensor", count: int) -> "Tensor":
        """See Buffers."""
        return self.empty(count)


class Source(Protocol):
    """A reader of `.beton` files."""

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Packed]:
        """Decodes the samples of every array that `ids` yields, a few batches ahead of the consumer.

        When closing the generator returns, nothing is decoded any more; an exception in a thread reaches the consumer.
        """
        ...


def layout(sizes_B2: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """(start, bytes, end of all) of images of these sizes in one buffer."""
    bytes_B = sizes_B2[:, 0].astype(np.int64) * sizes_B2[:, 1] * 3
    ends_B = np.cumsum(-(-bytes_B // _ALIGNMENT) * _ALIGNMENT)
    return np.concatenate([np.zeros(1, np.int64), ends_B[:-1]]), bytes_B, int(ends_B[-1])


def allocate(sizes_B2: NDArray[np.int32], buffers: Buffers) -> tuple["Tensor", NDArray[np.int64]]:
    """A buffer for images of these sizes, and where each begins."""
    offsets_B, bytes_B, count = layout(sizes_B2)
    pixels = buffers.empty(count)
    view = pixels.numpy()
    for start, stop in zip(offsets_B + bytes_B, [*offsets_B[1:], count], strict=True):
        view[start:stop] = 0
    return pixels, offsets_B
