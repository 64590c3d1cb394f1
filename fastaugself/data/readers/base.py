"""The protocol of readers, and the buffers they decode into.

Shape suffixes: B batch, N all samples or bytes, 2 = (height, width).
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..dataset import Dataset
from ..ragged import RaggedBatch

if TYPE_CHECKING:  # `fastaugself info` and `verify` decode without torch
    from torch import Tensor

Decode = Literal["cpu", "nvimgcodec"]  # where JPEGs are decoded

AHEAD = 3  # batches that are decoded ahead of the consumer
_SIZES = 8  # buffer sizes between two powers of two: rounding makes it likely that a buffer can be reused
_ALIGNMENT = 16  # bytes, alignment of each image: allows vectorised loads in kernels


class Decoded(NamedTuple):
    """The output of a reader.

    batch: the batch, on the CPU unless the reader decodes on the device. failed: positions in the batch of the images
    that could not be decoded; their pixels are undefined.
    """

    batch: RaggedBatch
    failed: list[int]


class Buffers(Protocol):
    """Allocator of the memory of batches."""

    def empty(self, count: int) -> "Tensor":
        """Uninitialised memory, uint8 [count]; may wait until memory is available."""
        ...

    def exchange(self, old: "Tensor", count: int) -> "Tensor":
        """Like `empty`, but replaces `old`, a buffer that has not been passed on yet; never waits."""
        ...


class OwnMemory:
    """Allocates CPU memory that the consumer owns.

    Memory of an earlier batch is reused once there are no references to it: touching fresh pages costs a third of the
    time of decoding into them.
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
        """Yields one decoded batch per array of sample ids in `ids`, decoded a few batches ahead of the consumer.

        Closing the generator ends all decoding before it returns. An exception in a thread is raised to the consumer.
        """
        ...


def layout(sizes_B2: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Layout of images of these sizes in one buffer: (byte offsets, byte lengths, total bytes)."""
    bytes_B = sizes_B2[:, 0].astype(np.int64) * sizes_B2[:, 1] * 3
    ends_B = np.cumsum(-(-bytes_B // _ALIGNMENT) * _ALIGNMENT)
    return np.concatenate([np.zeros(1, np.int64), ends_B[:-1]]), bytes_B, int(ends_B[-1])


def ragged_batch(
    dataset: Dataset, ids_B: NDArray[np.int64], pixels: "Tensor", offsets_B: NDArray[np.int64]
) -> RaggedBatch:
    """The RaggedBatch of these samples, whose images are in `pixels` at `offsets_B`."""
    import torch

    return RaggedBatch(
        pixels,
        torch.from_numpy(offsets_B),
        torch.from_numpy(dataset.sizes_N2[ids_B]),
        torch.from_numpy(dataset.labels_N[ids_B]),
        torch.from_numpy(ids_B),
    )


def allocate(sizes_B2: NDArray[np.int32], buffers: Buffers) -> tuple["Tensor", NDArray[np.int64]]:
    """Allocates a buffer for images of these sizes, with zeros between them; returns it and the offsets."""
    offsets_B, bytes_B, count = layout(sizes_B2)
    pixels = buffers.empty(count)
    view = pixels.numpy()
    for start, stop in zip(offsets_B + bytes_B, [*offsets_B[1:], count], strict=True):
        view[start:stop] = 0
    return pixels, offsets_B
