"""The batch as it leaves the loader: decoded photos of any size, packed back to back.

Shape suffixes: B images, N bytes, 2 = (height, width).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Canvas(NamedTuple):
    """A batch of decoded images, each decoded once whatever the number of views made from it.

    pixels: uint8 [N], tight HWC RGB images at `offsets_B`.
    offsets_B: int64 [B], byte offset of each image in `pixels`.
    sizes_B2: int32 [B, 2], (height, width) of each image in pixels.
    labels_B: int64 [B], class index, -1 where there is none.
    ids_B: int64 [B], position of the sample in its dataset; addresses its randomness.
    """

    pixels: Tensor
    offsets_B: Tensor
    sizes_B2: Tensor
    labels_B: Tensor
    ids_B: Tensor

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Canvas":
        """The same batch on `device`."""
        return Canvas(*(t.to(device, non_blocking=non_blocking) for t in self))
