"""A ragged batch: decoded photos of any size, packed back to back in one buffer.

Shape suffixes: B batch, N bytes, 2 = (height, width).
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # `fastaugself info` and `verify` decode without torch
    import torch
    from torch import Tensor


class RaggedBatch(NamedTuple):
    """A batch of images, each decoded once for any number of views.

    pixels: uint8 [N], contiguous HWC RGB images at `offsets_B`; padding bytes between images are 0.
    offsets_B: int64 [B], byte offset of each image in `pixels`.
    sizes_B2: int32 [B, 2], (height, width) of each image in pixels.
    labels_B: int64 [B], class index, -1 without a label.
    ids_B: int64 [B], index of the sample in its data set; the key of its random augmentations.
    """

    pixels: "Tensor"
    offsets_B: "Tensor"
    sizes_B2: "Tensor"
    labels_B: "Tensor"
    ids_B: "Tensor"

    def to(self, device: "torch.device", *, non_blocking: bool = False) -> "RaggedBatch":
        """The same batch on `device`."""
        return RaggedBatch(*(t.to(device, non_blocking=non_blocking) for t in self))
