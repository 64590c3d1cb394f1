"""Effective rank of a representation, to detect collapse (Garrido 2023, "RankMe", arXiv 2210.02885).

Shape suffixes: N samples, D features.
"""

import torch
from torch import Tensor


def rankme(features_ND: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values: from 1 (collapsed) to at most min(N, D)."""
    return effective_rank(torch.linalg.svdvals(features_ND.double()))


def effective_rank(singular_D: Tensor) -> float:
    """`rankme` from the singular values of the features."""
    p = singular_D / singular_D.sum() + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))
