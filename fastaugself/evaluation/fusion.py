"""Fusion of several models' features (Ericsson 2021, arXiv 2111.11398, section 5: plain concatenation).

Shape suffixes: N samples, D features.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError

Fusion = Literal["concat", "mean", "add"]


class Representation(NamedTuple):
    """Features of the images of one split, by one encoder or several.

    name: of the encoder. x_ND: float32, pooled, not normalised. identity: hash of the images and their order.
    """

    name: str
    x_ND: Tensor
    identity: str


def fuse(parts: Sequence[Representation], how: Fusion = "concat") -> Representation:
    """Fuses the raw features of several models of the same images: concatenated, averaged or added.

    Raises UsageError if the parts are of different images or in different orders, or if features of different widths
    are averaged or added.
    """
    if not parts:
        raise UsageError("expected at least one representation to fuse, got none")
    first = parts[0]
    for part in parts[1:]:
        if part.identity != first.identity or len(part.x_ND) != len(first.x_ND):
            raise UsageError(
                f"the features of {first.name} ({len(first.x_ND)}) and {part.name} ({len(part.x_ND)}) are of "
                f"different images, or in different orders: extract both from the same data"
            )
        if how != "concat" and part.x_ND.shape[1] != first.x_ND.shape[1]:
            raise UsageError(
                f"{first.name} has {first.x_ND.shape[1]} features and {part.name} has {part.x_ND.shape[1]}: they "
                f"cannot be fused by {how}; pass --fuse concat"
            )
    if len(parts) == 1:
        return first
    name = (" + " if how == "concat" else f" {how} ").join(part.name for part in parts)
    tensors = [part.x_ND for part in parts]
    x_ND = torch.cat(tensors, 1) if how == "concat" else torch.stack(tensors).sum(0)
    return Representation(name, x_ND / len(parts) if how == "mean" else x_ND, first.identity)
