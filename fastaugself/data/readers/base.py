"""The protocol of readers, and the memory that they decode into.

Shape suffixes: B images of a batch, N samples or bytes, 2 = (height, width).
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..dataset import Dataset
from ..ragged import RaggedBatch

if TYPE_CHECKING:  # `fastaugself info` and `verify` decode without torch
    from torch import Tensor

Decode = Literal["cpu", "nvimgcodec"]  # who decodes

AHEAD = 3  # batches that are decoded ahead of the consumer
_SIZES = 8  # of buffers, between a power of two and the next: only those of one size can serve again
_ALIGNMENT = 16  # bytes, of every image's start: lets kernels load whole vectors


class Decoded(NamedTuple):
    """A batch as a reader hands it over. failed: positions of the images that could not be decoded.

    Their pixels are undefined. The batch is on the CPU, unless the reader decodes on the device.
    """

    batch: RaggedBatch
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

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Decoded]:
        """Decodes the samples of every array that `ids` yields, a few batches ahead of the consumer.

        When closing the generator returns, nothing is decoded any more; an exception in a thread reaches the consumer.
        """
        ...


def layout(sizes_B2: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """(start, bytes, end of all) of images of these sizes in one buffer."""
    bytes_B = sizes_B2[:, 0].astype(np.int64) * sizes_B2[:, 1] * 3
    ends_B = np.cumsum(-(-bytes_B // _ALIGNMENT) * _ALIGNMENT)
    return np.concatenate([np.zeros(1, np.int64), ends_B[:-1]]), bytes_B, int(ends_B[-1])


def ragged_batch(
    dataset: Dataset, ids_B: NDArray[np.int64], pixels: "Tensor", offsets_B: NDArray[np.int64]
) -> RaggedBatch:
    """The batch of these samples, `pixels` being where they are decoded to."""
    import torch

    return RaggedBatch(
        pixels,
        torch.from_numpy(offsets_B),
        torch.from_numpy(dataset.sizes_N2[ids_B]),
        torch.from_numpy(dataset.labels_N[ids_B]),
        torch.from_numpy(ids_B),
    )


def allocate(sizes_B2: NDArray[np.int32], buffers: Buffers) -> tuple["Tensor", NDArray[np.int64]]:
    """A buffer for images of these sizes, zero between them, and the offset of each image."""
    offsets_B, bytes_B, count = layout(sizes_B2)
    pixels = buffers.empty(count)
    view = pixels.numpy()
    for start, stop in zip(offsets_B + bytes_B, [*offsets_B[1:], count], strict=True):
        view[start:stop] = 0
    return pixels, offsets_B
