"""Image retrieval: the nearest neighbours of each image by cosine similarity of frozen features.

As in CASSLE's evaluation (arXiv 2306.06082): raw pooled features, among the test images.

Shape suffixes: N samples, D features, K neighbours.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError


class Neighbors(NamedTuple):
    """Nearest neighbours of each sample, nearest first, without itself: indices (int64) and cosine similarities."""

    index_NK: Tensor
    similarity_NK: Tensor


def nearest(x_ND: Tensor, *, neighbors: int = 5, chunk: int = 1024) -> Neighbors:
    """The `neighbors` most similar other samples of each sample.

    x_ND: features. chunk: queries per block. Raises UsageError for `neighbors` samples or fewer.
    """
    if len(x_ND) <= neighbors:
        raise UsageError(f"{len(x_ND)} images are too few for {neighbors} neighbours each: pass a smaller --neighbors")
    parts = [similarity.topk(neighbors, dim=1) for _, similarity in _to_others(x_ND, chunk)]
    return Neighbors(torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts]))


def average_precision(x_ND: Tensor, labels_N: Tensor, *, chunk: int = 512) -> Tensor:
    """Average precision of each sample as a query against all others, float64 [N]; NaN for a class of one sample.

    x_ND: features. labels_N: int64 classes. A neighbour is relevant if it has the query's class: average precision is
    the mean, over the ranks of relevant neighbours, of the precision at that rank.
    """
    parts = []
    for begin, similarity in _to_others(x_ND, chunk):
        order = similarity.argsort(1, descending=True)[:, :-1]
        same = (labels_N[order] == labels_N[begin : begin + chunk, None]).double()
        ranks = torch.arange(1, same.shape[1] + 1, device=x_ND.device)
        parts.append((same * same.cumsum(1) / ranks).sum(1) / same.sum(1))
    return torch.cat(parts)


def _to_others(x_ND: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields (index of the first query, cosine similarities [chunk, N], float32); a sample has -2 with itself."""
    x_ND = F.normalize(x_ND.float(), dim=1)
    for begin in range(0, len(x_ND), chunk):
        similarity = x_ND[begin : begin + chunk] @ x_ND.T
        rows = torch.arange(len(similarity), device=x_ND.device)
        similarity[rows, rows + begin] = -2
        yield begin, similarity
