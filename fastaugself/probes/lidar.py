"""Effective rank of what tells photos apart in spite of their views (Thilak 2023, "LiDAR", arXiv 2312.04000).

The views of a photo are a class, and the rank is that of the linear discriminant analysis of these classes: directions
count by how much the means of photos vary along them, in units of the variation within a photo.

Shape suffixes: N photos, Q views of each photo, D features.
"""

import torch
from torch import Tensor

DELTA = 1e-4  # added to the variances within a photo, as published: features whose variances are below it count less
EPSILON = 1e-7  # added to the shares of the eigenvalues


def lidar(features_NQD: Tensor) -> float:
    """Effective rank of features of several views of each photo: from 1 (collapsed) to at most min(N - 1, D).

    features_NQD: features, any float dtype; at least two photos with two views each. Not invariant to the scale of the
    features, because of `DELTA`. Raises ValueError for too few photos or views, and for NaN or Inf.
    """
    means_ND, within_DD = scatter(features_NQD)
    return lidar_of_scatter(means_ND, within_DD, views=features_NQD.shape[1])


def scatter(features_NQD: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each photo's views, and the scatter of the views around them summed over photos; float64.

    The scatter of many photos is the sum of those of its parts. Raises ValueError as `lidar`.
    """
    if features_NQD.ndim != 3 or features_NQD.shape[1] < 2:
        raise ValueError(f"LiDAR needs features [photos, views, D] of at least two views, got {[*features_NQD.shape]}")
    if not bool(torch.isfinite(features_NQD).all()):
        raise ValueError("the features of LiDAR contain NaN or Inf")
    means_ND = features_NQD.double().mean(1)
    within_DD = means_ND.new_zeros(means_ND.shape[1], means_ND.shape[1])
    for x_nQD, mean_nD in zip(features_NQD.split(256), means_ND.split(256), strict=True):
        rows_RD = (x_nQD.double() - mean_nD[:, None]).flatten(0, 1)
        within_DD += rows_RD.T @ rows_RD
    return means_ND, within_DD


def lidar_of_scatter(means_ND: Tensor, within_DD: Tensor, *, views: int) -> float:
    """`lidar` from the results of `scatter` for all photos. views: Q.

    The eigenvalues of S_w^-1/2 S_b S_w^-1/2 are those of L^-1 S_b L^-T with the Cholesky factor L of S_w, and of the
    matrix of inner products of the photos' means, which is smaller where there are fewer photos than features.
    """
    count, width = means_ND.shape
    if count < 2:
        raise ValueError(f"LiDAR needs at least two photos, got {count}")
    identity_DD = torch.eye(width, dtype=torch.float64, device=within_DD.device)
    factor_DD = torch.linalg.cholesky(within_DD / (count * (views - 1)) + DELTA * identity_DD)
    white_DN = torch.linalg.solve_triangular(factor_DD, (means_ND - means_ND.mean(0)).T, upper=False)
    products = white_DN @ white_DN.T if width <= count else white_DN.T @ white_DN
    eigenvalues = torch.linalg.eigvalsh(products).clamp(min=0)
    p = eigenvalues / eigenvalues.sum().clamp(min=torch.finfo(torch.float64).tiny) + EPSILON
    return float(torch.exp(-(p * p.log()).sum()))
