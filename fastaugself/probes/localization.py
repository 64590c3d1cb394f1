"""Boxes for localisation: the object's box from frozen features by ridge regression (Lee 2021, arXiv 2111.09613).

Boxes are clipped to the square that the encoder sees and given as fractions of it (centre x, centre y, width, height).
The published score is a mean square error; its exact protocol was not released, so it cannot be compared with this one.

Shape suffixes: N samples, 4 = (left, top, right, bottom) or (centre x, centre y, width, height).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError


def frame_boxes(corners_N4: NDArray[np.float64]) -> Tensor:
    """Boxes clipped to the encoder's square, as (centre x, centre y, width, height), float64 [N, 4].

    corners_N4: (left, top, right, bottom) as fractions of the square. Raises UsageError for boxes of another shape, and
    for boxes that are empty or outside the square.
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
            f"{int(empty.sum())} boxes are empty or outside the central square (first: sample {first}, "
            f"{[round(v, 3) for v in corners[first].tolist()]} as fractions of it): remove these samples"
        )
    return torch.cat([(inside[:, 2:] + inside[:, :2]) / 2, size], 1)


def iou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """Intersection over union [N] of two sets of boxes (centre x, centre y, width, height)."""
    low = torch.maximum(a_N4[:, :2] - a_N4[:, 2:] / 2, b_N4[:, :2] - b_N4[:, 2:] / 2)
    high = torch.minimum(a_N4[:, :2] + a_N4[:, 2:] / 2, b_N4[:, :2] + b_N4[:, 2:] / 2)
    intersection = (high - low).clamp(min=0).prod(1)
    union = a_N4[:, 2:].clamp(min=0).prod(1) + b_N4[:, 2:].clamp(min=0).prod(1) - intersection
    return intersection / union.clamp(min=1e-12)
