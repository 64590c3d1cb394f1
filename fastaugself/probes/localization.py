"""Localisation: the box of the object from frozen features, by ridge regression (Lee 2021, arXiv 2111.09613).

The boxes are those in the square that the encoder sees: clipped to it, as fractions (centre x, centre y, width,
height). The published error is a mean square; its exact protocol was not released, so only errors of this one compare.

Shape suffixes: N samples, 4 = (left, top, right, bottom) or (centre x, centre y, width, height).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError


def frame_boxes(corners_N4: NDArray[np.float64]) -> Tensor:
    """Corners as fractions of the square to (centre x, centre y, width, height) of what of them is inside, float64.

    Raises UsageError for boxes that are empty or outside of the square.
    """
    corners = torch.from_numpy(corners_N4).double()
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise UsageError(f"boxes have shape {tuple(corners.shape)}, expected (left, top, right, bottom) of each sample")
    inside = corners.clamp(0, 1)
    size = inside[:, 2:] - inside[:, :2]
    empty = (size <= 0).any(1)
    if bool(empty.any()):
        first = int(empty.nonzero()[0])
        raise UsageError(
            f"{int(empty.sum())} boxes are empty or outside of the central square (first: sample {first}, "
            f"{[round(v, 3) for v in corners[first].tolist()]} in parts of it)"
        )
    return torch.cat([(inside[:, 2:] + inside[:, :2]) / 2, size], 1)


def iou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """Intersection over union of boxes (centre x, centre y, width, height), [N]."""
    low = torch.maximum(a_N4[:, :2] - a_N4[:, 2:] / 2, b_N4[:, :2] - b_N4[:, 2:] / 2)
    high = torch.minimum(a_N4[:, :2] + a_N4[:, 2:] / 2, b_N4[:, :2] + b_N4[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    union = a_N4[:, 2:].clamp(min=0).prod(1) + b_N4[:, 2:].clamp(min=0).prod(1) - shared
    return shared / union.clamp(min=1e-12)
