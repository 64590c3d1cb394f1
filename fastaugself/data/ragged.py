"""A batch of decoded photos of any size: a ragged batch, packed back to back in one buffer.

Shape suffixes: B images, N bytes, 2 = (height, width).
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # `fastaugself info` and `verify` decode without torch
    import torch
    from torch import Tensor


class RaggedBatch(NamedTuple):
    """Decoded images, each decoded once whatever the number of views made from it.

    pixels: uint8 [N], tight HWC RGB images at `offsets_B`; the bytes between two images are 0.
    offsets_B: int64 [B], byte offset of each image in `pixels`.
    sizes_B2: int32 [B, 2], (height, width) of each image in pixels.
    labels_B: int64 [B], class index, -1 where there is none.
    ids_B: int64 [B], position of the sample in its data set; addresses its randomness.
    """

    pixels: "Tensor"
    offsets_B: "Tensor"
    sizes_B2: "Tensor"
    labels_B: "Tensor"
    ids_B: "Tensor"

    def to(self, device: "torch.device", *, non_blocking: bool = False) -> "RaggedBatch":
        """The same batch on `device`."""
        return RaggedBatch(*(t.to(device, non_blocking=non_blocking) for t in self))
