"""Split, encode, combine (Fast-MoCo: Ci 2022, arXiv 2207.08220): parts of a view are encoded one by one, and every pair
of them gives an embedding.

Shape suffixes: B batch, S = parts x B, C channels, H W, D features.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..errors import UsageError

COMBINED = 2  # parts per embedding: the paper's best for 2 x 2 parts


def check_split(split: int) -> None:
    """Raises UsageError for a number of parts per side that gives no pairs."""
    if not 1 <= split <= 4:
        nearest = 1 if split < 1 else 4
        raise UsageError(f"--method.split must be from 1 to 4, got {split}; pass --method.split {nearest}")


def split_views(x_BCHW: Tensor, split: int) -> Tensor:
    """The split x split parts of each image, row by row, [S, C, H / split, W / split].

    The first part of all images, then the second part of all images, and so on. Raises ValueError if the size is no
    multiple of `split`.
    """
    size = x_BCHW.shape[-1]
    if size % split or x_BCHW.shape[-2] % split:
        raise ValueError(f"images of {x_BCHW.shape[-2]} x {size} px cannot be cut in {split} x {split} equal parts")
    parts = [part for rows in x_BCHW.chunk(split, 2) for part in rows.chunk(split, 3)]
    last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
    return torch.cat(parts).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def stitched(map_SCHW: Tensor, split: int) -> Tensor:
    """The feature maps of all parts put together, [B, C, split x H, split x W]; the inverse of `split_views`."""
    parts = map_SCHW.chunk(split * split)
    rows = [torch.cat(parts[i : i + split], 3) for i in range(0, len(parts), split)]
    return torch.cat(rows, 2)


def combine(parts: Sequence[Tensor]) -> list[Tensor]:
    """The mean of every pair of parts, each [B, D]. parts: features [B, D] of each part."""
    return [sum(chosen[1:], chosen[0]) / COMBINED for chosen in combinations(parts, COMBINED)]


def repeated(condition_Bn: Tensor | None, rows: int) -> Tensor | None:
    """The condition of every row, [rows, n], if there are several embeddings of an image, B rows apart."""
    if condition_Bn is None or len(condition_Bn) == rows:
        return condition_Bn
    return condition_Bn.repeat(rows // len(condition_Bn), 1)
