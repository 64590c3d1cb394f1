"""Effective rank of a representation: an alarm for collapse (Garrido 2023, "RankMe", arXiv 2210.02885).

Shape suffixes: N samples, D features.
"""

import torch
from torch import Tensor


def rankme(features_ND: Tensor) -> float:
    """exp of the entropy of the normalised singular values; 1 = collapsed, at most min(N, D)."""
    singular = torch.linalg.svdvals(features_ND.double())
    p = singular / singular.sum() + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))
