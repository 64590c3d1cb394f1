"""How fast the eigenvalues of the features' covariance decay (Agrawal 2022, "alpha-ReQ", arXiv 2202.05808).

Shape suffixes: N samples, D features.
"""

import torch
from torch import Tensor

FIRST, LAST = 12, 100  # ranks of the eigenvalues that are fitted, from 1, as in the published evaluations
LEAST = 8  # eigenvalues that a slope needs


def alpha_req(features_ND: Tensor) -> float:
    """The exponent alpha of eigenvalue_i ~ i^-alpha, fitted to the eigenvalues of rank 12 to 100.

    About 1 is said to transfer best; larger values decay faster (few directions), smaller ones slower. The fit is least
    squares of the logarithms, weighted by 1 / rank, as published. NaN for fewer than `LEAST` positive eigenvalues from
    rank 12 on, as of few samples or features. Raises ValueError for NaN or Inf.
    """
    if not bool(torch.isfinite(features_ND).all()):
        raise ValueError("the features of alpha-ReQ contain NaN or Inf")
    x_ND = features_ND.double()
    return slope(covariance_eigenvalues(x_ND - x_ND.mean(0)))


def covariance_eigenvalues(centered_ND: Tensor) -> Tensor:
    """Eigenvalues of the covariance of centred features, descending, without those that are 0 up to rounding."""
    count, width = centered_ND.shape
    products = centered_ND.T @ centered_ND if width <= count else centered_ND @ centered_ND.T
    eigenvalues = torch.linalg.eigvalsh(products).flip(0) / max(1, count - 1)
    return eigenvalues[eigenvalues > 1e-12 * eigenvalues[0]] if len(eigenvalues) else eigenvalues


def slope(eigenvalues: Tensor) -> float:
    """alpha of descending eigenvalues; NaN if there are too few, see `alpha_req`."""
    fitted = eigenvalues[FIRST - 1 : LAST]
    if len(fitted) < LEAST:
        return float("nan")
    rank = torch.arange(FIRST, FIRST + len(fitted), dtype=torch.float64, device=fitted.device)
    weight, x, y = 1 / rank, rank.log(), fitted.double().log()
    x_mean, y_mean = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
    return float(-(weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean).square()).sum())
