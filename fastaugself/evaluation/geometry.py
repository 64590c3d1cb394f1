"""Label-free scores of the geometry of features, with intervals over photos: RankMe, alpha-ReQ and LiDAR.

Shape suffixes: N photos, Q views of each photo, D features, G groups of the jackknife.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..probes.alpha_req import alpha_req, slope
from ..probes.cka import gram, linear_cka, without
from ..probes.intervals import Score, jackknife_groups, jackknife_score
from ..probes.lidar import lidar, lidar_of_scatter, scatter
from ..probes.rankme import effective_rank, rankme


def rankme_and_alpha(features_ND: Tensor, *, seed: int) -> tuple[Score, Score]:
    """RankMe and alpha-ReQ of features. seed: of the groups of the jackknife."""
    ranks, slopes = [], []
    for products_DD, mean_D, count in _products_without(features_ND.double(), seed):
        ranks.append(effective_rank(torch.linalg.eigvalsh(products_DD).clamp(min=0).sqrt()))
        eigenvalues = torch.linalg.eigvalsh(products_DD - count * torch.outer(mean_D, mean_D)).flip(0)
        slopes.append(slope(eigenvalues[eigenvalues > 1e-12 * eigenvalues[0]]))
    return jackknife_score(rankme(features_ND), ranks), jackknife_score(alpha_req(features_ND), slopes)


def _products_without(x_ND: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """X'X, the mean and the number of samples without each group."""
    groups = [torch.from_numpy(group) for group in jackknife_groups(len(x_ND), seed=seed)]
    products = [x_ND[group].T @ x_ND[group] for group in groups]
    whole_DD, total_D = torch.stack(products).sum(0), x_ND.sum(0)
    for group, part_DD in zip(groups, products, strict=True):
        count = len(x_ND) - len(group)
        yield whole_DD - part_DD, (total_D - x_ND[group].sum(0)) / max(1, count), count


def lidar_score(features_NQD: Tensor, *, seed: int) -> Score:
    """LiDAR of features of views. seed: of the groups of the jackknife."""
    views = features_NQD.shape[1]
    groups = jackknife_groups(len(features_NQD), seed=seed)
    parts = [scatter(features_NQD[torch.from_numpy(group)]) for group in groups]
    whole_DD = torch.stack([within_DD for _, within_DD in parts]).sum(0)
    without = [
        lidar_of_scatter(
            torch.cat([means for j, (means, _) in enumerate(parts) if j != i]), whole_DD - within_DD, views=views
        )
        for i, (_, within_DD) in enumerate(parts)
    ]
    return jackknife_score(lidar(features_NQD), without)


def cka_scores(features: Sequence[Tensor], *, seed: int) -> list[list[Score]]:
    """Linear CKA of every pair of representations [N, D] of the same photos. seed: of the groups of the jackknife."""
    grams = [gram(x_ND) for x_ND in features]
    whole_MM = linear_cka(grams)
    groups: list[NDArray[np.int64]] = jackknife_groups(len(features[0]), seed=seed)
    without_GMM = torch.stack([linear_cka([without(g, torch.from_numpy(group)) for g in grams]) for group in groups])
    count = len(features)
    return [
        [jackknife_score(float(whole_MM[i, j]), without_GMM[:, i, j].tolist()) for j in range(count)]
        for i in range(count)
    ]
