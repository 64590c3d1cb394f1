"""Linear centred kernel alignment: how similar two representations of the same samples are (Kornblith 2019, arXiv
1905.00414, equation 5).

Shape suffixes: N samples, D features, M representations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def gram(features_ND: Tensor) -> Tensor:
    """Inner products of all pairs of samples, float64 [N, N], centred. Raises ValueError for NaN or Inf."""
    if not bool(torch.isfinite(features_ND).all()):
        raise ValueError("the features of CKA contain NaN or Inf")
    x_ND = features_ND.double()
    x_ND = x_ND - x_ND.mean(0)
    return x_ND @ x_ND.T


def linear_cka(grams_MNN: Sequence[Tensor]) -> Tensor:
    """The similarity of every pair of representations, float64 [M, M] in [0, 1]: 1 up to rotation and scale.

    grams_MNN: `gram` of each, on the same samples. HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), which for linear kernels
    is |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms. A constant representation has a similarity of 0 with all.
    """
    flat_MK = torch.stack([g.flatten() for g in grams_MNN])
    norm_M = flat_MK.norm(dim=1)
    unit_MK = flat_MK / norm_M.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    return (unit_MK @ unit_MK.T).clamp(0, 1)


def without(gram_NN: Tensor, left_out_K: Tensor) -> Tensor:
    """The `gram` of the samples that are not left out, without the features. left_out_K: int64 positions."""
    keep_N = torch.ones(len(gram_NN), dtype=torch.bool, device=gram_NN.device)
    keep_N[left_out_K] = False
    rest = gram_NN[keep_N][:, keep_N]
    return rest - rest.mean(0) - rest.mean(1, keepdim=True) + rest.mean()
