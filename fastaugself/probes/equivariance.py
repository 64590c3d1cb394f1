"""Equivariance: does a predicted view lie nearer to the view that it predicts than to the photo's other views?

MRR, H@k and PRE are those of SIE (Garrido 2023, arXiv 2302.10283) as STL uses them for augmentations (Yu 2024, arXiv
2501.08712); the gain over copying is EquiMod's (Devillers 2023, arXiv 2211.01244). All K views of a photo are ranked,
the source view among them, by cosine distance to the prediction.

Views at the same distance have a rank in random order: every score is its expectation over these orders. So features
that ignore the augmentation have the score of chance, and not a perfect one.

Shape suffixes: N photos, K views of each photo (source, target or ranked), E embedding, n parameters.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TIE = 1e-5
"""Views whose distances to a prediction (of unit vectors) differ by less have the same rank: float32 is no finer."""


class PhotoScores(NamedTuple):
    """Scores of each photo, float64 [N], means over its ordered pairs of different views (source, target).

    mrr_N: reciprocal rank of the target. h1_N, h5_N: whether the target's rank is at most 1, 5. pre_N: distance of the
    parameters of the nearest view and the target. gain_N: cosine similarity of target and prediction minus that of
    target and source; above 0 where the prediction does more than copy.
    """

    mrr_N: Tensor
    h1_N: Tensor
    h5_N: Tensor
    pre_N: Tensor
    gain_N: Tensor


def score_photos(y_NKE: Tensor, yhat_NKKE: Tensor, a_NKn: Tensor) -> PhotoScores:
    """The scores of every photo.

    y_NKE: embeddings of the views, any float dtype and length; they are normalised here. yhat_NKKE: predictions from
    view i (axis 1) of view j (axis 2); those of a view from itself are ignored. a_NKn: parameters of the views, in the
    units in which PRE measures (standardised).
    Raises ValueError for shapes that do not fit, fewer than two views, and NaN or Inf values.
    """
    N, K, E = y_NKE.shape
    if K < 2 or yhat_NKKE.shape != (N, K, K, E) or a_NKn.shape[:2] != (N, K):
        raise ValueError(
            f"expected embeddings [N, K, E] with K >= 2, predictions [N, K, K, E] and parameters [N, K, n], got "
            f"{tuple(y_NKE.shape)}, {tuple(yhat_NKKE.shape)} and {tuple(a_NKn.shape)}"
        )
    y, yhat = (F.normalize(t.double(), dim=-1) for t in (y_NKE, yhat_NKKE))
    if not (torch.isfinite(y).all() and torch.isfinite(yhat).all() and torch.isfinite(a_NKn).all()):
        raise ValueError("embeddings, predictions or parameters contain NaN or Inf: check the predictor's weights")
    cosine_NKKK = torch.einsum("nije,nke->nijk", yhat, y)
    # Orders views as 1 - cosine does, but a rounding error of the features changes it by no more than itself.
    square_NKKK = yhat.square().sum(-1)[..., None] + y.square().sum(-1)[:, None, None] - 2 * cosine_NKKK
    distance_NKKK = square_NKKK.clamp(min=0).sqrt()
    apart_NKK = torch.cdist(a_NKn.double(), a_NKn.double(), compute_mode="donot_use_mm_for_euclid_dist")

    mrr, h1, h5 = _expected(distance_NKKK, distance_NKKK.diagonal(dim1=2, dim2=3), TIE)
    nearest = (distance_NKKK <= distance_NKKK.amin(-1, keepdim=True) + TIE).double()
    pre = torch.einsum("nijk,nkj->nij", nearest / nearest.sum(-1, keepdim=True), apart_NKK)
    gain = cosine_NKKK.diagonal(dim1=2, dim2=3) - y @ y.mT
    return PhotoScores(*(_over_pairs(score_NKK) for score_NKK in (mrr, h1, h5, pre, gain)))


def chance(a_NKn: Tensor) -> PhotoScores:
    """The scores of a random ranking: MRR is the mean of 1/r over r = 1..K, H@k is k/K, PRE the mean distance.

    a_NKn: as in `score_photos`. The gain is 0, that of copying the source.
    """
    N, K, _ = a_NKn.shape
    apart_NKK = torch.cdist(a_NKn.double(), a_NKn.double(), compute_mode="donot_use_mm_for_euclid_dist")
    constants = (sum(1 / r for r in range(1, K + 1)) / K, 1 / K, min(1.0, 5 / K))
    mrr, h1, h5 = (torch.full((N,), value, dtype=torch.float64) for value in constants)
    return PhotoScores(mrr, h1, h5, apart_NKK.mean((1, 2)), torch.zeros(N, dtype=torch.float64))


def ceiling(a_NKn: Tensor) -> PhotoScores:
    """The best scores that are possible: 1 for MRR and H@k, less where views have the same parameters.

    a_NKn: as in `score_photos`. Views with the same parameters, such as two that are not flipped, are the same image,
    which no ranking can tell apart. The gain is NaN: it has no ceiling of its own.
    """
    apart_NKK = torch.cdist(a_NKn.double(), a_NKn.double(), compute_mode="donot_use_mm_for_euclid_dist")
    mrr, h1, h5 = (score_NK.mean(1) for score_NK in _expected(apart_NKK, apart_NKK.diagonal(dim1=1, dim2=2), 0.0))
    return PhotoScores(mrr, h1, h5, torch.zeros_like(mrr), torch.full_like(mrr, float("nan")))


def _expected(distance_K: Tensor, target: Tensor, tie: float) -> tuple[Tensor, Tensor, Tensor]:
    """Expected reciprocal rank, and probabilities of a rank of at most 1 and 5, with ties in random order.

    distance_K: distances of the ranked views, [..., K]. target: distance of the target, one of them, [...].
    """
    difference = distance_K - target[..., None]
    ahead, tied = (difference < -tie).sum(-1), (difference.abs() <= tie).sum(-1)
    ranks = torch.arange(distance_K.shape[-1] + 1, dtype=torch.float64, device=target.device)
    harmonic = torch.where(ranks > 0, 1 / ranks.clamp(min=1), 0).cumsum(0)  # 1 + 1/2 + ... + 1/r at position r
    h1, h5 = (torch.minimum((k - ahead).clamp(min=0), tied) / tied.double() for k in (1, 5))
    return (harmonic[ahead + tied] - harmonic[ahead]) / tied, h1, h5


def _over_pairs(score_NKK: Tensor) -> Tensor:
    """Mean over the ordered pairs of different views, [N]."""
    K = score_NKK.shape[1]
    different_KK = ~torch.eye(K, dtype=torch.bool, device=score_NKK.device)
    return score_NKK[:, different_KK].double().mean(1)
