"""A batch of images of any sizes in a few tensors.

Shape suffixes: B batch, N bytes, 2 = (height, width).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info


class RaggedBatch(NamedTuple):
    """A batch of images of any sizes.

    pixels: uint8 [N], the images back to back, each [H, W, 3] RGB. offsets_B: int64 [B], the first byte of each.
    sizes_B2: int32 [B, 2], (height, width). labels_B: int64 [B], -1 without a label. ids_B: int64 [B], index of each
    image in its data set, or None if it is not known (see `WithIndex`).

    As a named tuple of tensors it passes through the workers and the `pin_memory` of a DataLoader and through what
    other libraries do to batches. `len(batch)` is that of the tuple; the number of images is `len(batch.sizes_B2)`.
    """

    pixels: Tensor
    offsets_B: Tensor
    sizes_B2: Tensor
    labels_B: Tensor
    ids_B: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "RaggedBatch":
        """The same batch on a device."""
        return RaggedBatch._make(None if t is None else t.to(device, non_blocking=non_blocking) for t in self)

    def pin_memory(self) -> "RaggedBatch":
        """The same batch in page-locked memory, from which it can be copied to a GPU while the CPU goes on."""
        return RaggedBatch._make(None if t is None else t.pin_memory() for t in self)


def pack(images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, offsets_B and sizes_B2 of a `RaggedBatch`, without gaps between the images.

    images: uint8 [H, W, C] in any memory layout, of which the first three channels are taken, or the only one three
    times. In a worker of a DataLoader the pixels are in shared memory from the start, as those of PyTorch's own
    collate function are, instead of being copied there when they are sent.
    """
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    lengths = sizes.astype(np.int64).prod(1) * 3
    offsets = np.cumsum(lengths) - lengths
    pixels = _buffer(int(lengths.sum()))
    packed = pixels.numpy()
    for image, start, length in zip(images, offsets, lengths, strict=True):
        packed[start : start + length].reshape(*image.shape[:2], 3)[...] = image[..., :3]
    return pixels, torch.from_numpy(offsets), torch.from_numpy(sizes)


def _buffer(size: int) -> Tensor:
    """Uninitialised bytes."""
    if get_worker_info() is None:
        return torch.empty(size, dtype=torch.uint8)
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))
