"""Retrieval: the nearest images of each image of a set by their frozen features.

As in CASSLE's evaluation (arXiv 2306.06082): cosine similarity of raw pooled features among the test images.

Shape suffixes: N samples, D features, K neighbours.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError


class Neighbors(NamedTuple):
    """index_NK: int64, nearest first, never the query itself. similarity_NK: cosine."""

    index_NK: Tensor
    similarity_NK: Tensor


def nearest(x_ND: Tensor, *, neighbors: int = 5, chunk: int = 1024) -> Neighbors:
    """The most similar other samples of each sample; UsageError where there are too few."""
    if len(x_ND) <= neighbors:
        raise UsageError(f"{len(x_ND)} images have no {neighbors} neighbours each: pass a smaller --neighbors")
    parts = [similarity.topk(neighbors, dim=1) for _, similarity in _to_others(x_ND, chunk)]
    return Neighbors(torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts]))


def average_precision(x_ND: Tensor, labels_N: Tensor, *, chunk: int = 512) -> Tensor:
    """Of each query over the ranking of all others, float64 [N]; NaN for a class of one sample.

    The mean over the ranks of the same class of the share of the same class up to there.
    """
    parts = []
    for begin, similarity in _to_others(x_ND, chunk):
        order = similarity.argsort(1, descending=True)[:, :-1]
        same = (labels_N[order] == labels_N[begin : begin + chunk, None]).double()
        ranks = torch.arange(1, same.shape[1] + 1, device=x_ND.device)
        parts.append((same * same.cumsum(1) / ranks).sum(1) / same.sum(1))
    return torch.cat(parts)


def _to_others(x_ND: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Cosines of `chunk` samples at a time to all, float32, with the number of the first; -2 of a sample to itself."""
    x_ND = F.normalize(x_ND.float(), dim=1)
    for begin in range(0, len(x_ND), chunk):
        similarity = x_ND[begin : begin + chunk] @ x_ND.T
        rows = torch.arange(len(similarity), device=x_ND.device)
        similarity[rows, rows + begin] = -2
        yield begin, similarity
