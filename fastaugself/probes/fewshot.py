"""Few-shot episodes: N-way K-shot classification by one-vs-rest logistic regression on frozen features.

As published with AugSelf (Lee 2021, arXiv 2111.09613, table 2): 5 ways, 1 or 5 shots, 16 queries per class, 2000
episodes, scikit-learn's liblinear at C = 1 on raw features; mean with 1.96 standard errors. The objective of liblinear,
which also penalises the bias, is strictly convex, so many episodes are solved as one batch by Newton's method.

Shape suffixes: N samples, D features, E episodes, W ways, S support samples (W x shots), Q queries.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError

WAYS, QUERIES, EPISODES = 5, 16, 2000
CHUNK = 200  # episodes solved as one batch


def draw_episodes(
    labels_N: NDArray[np.int64],
    *,
    shots: int,
    ways: int = WAYS,
    queries: int = QUERIES,
    episodes: int = EPISODES,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draws episodes: (support [E, W, shots], query [E, W, queries]), int64 sample indices.

    labels_N: int64 classes; samples with a negative label are ignored. The second axis is the class within the
    episode. Raises UsageError where fewer than `ways` classes have `shots + queries` samples.
    """
    if shots < 1 or ways < 2 or queries < 1 or episodes < 1:
        got = f"{shots}, {ways}, {queries} and {episodes}"
        raise UsageError(f"expected at least 1 shot, 2 ways, 1 query and 1 episode, got {got}")
    members = [np.flatnonzero(labels_N == label) for label in np.unique(labels_N[labels_N >= 0])]
    usable = [indices for indices in members if len(indices) >= shots + queries]
    if len(usable) < ways:
        raise UsageError(
            f"{len(usable)} of {len(members)} classes have the {shots + queries} samples needed for {shots} shots and "
            f"{queries} queries, but an episode needs {ways} classes: pass fewer --shots, --queries or --ways, or add "
            f"samples"
        )
    random = np.random.default_rng(seed)
    support = np.empty((episodes, ways, shots), np.int64)
    query = np.empty((episodes, ways, queries), np.int64)
    for e in range(episodes):
        for w, c in enumerate(random.choice(len(usable), ways, replace=False)):
            drawn = random.choice(usable[c], shots + queries, replace=False)
            support[e, w], query[e, w] = drawn[:shots], drawn[shots:]
    return support, query


def episode_accuracies(
    x_ND: Tensor, support_EWS: NDArray[np.int64], query_EWQ: NDArray[np.int64], *, c: float = 1.0
) -> NDArray[np.float64]:
    """Query accuracy of each episode, float64 [E].

    x_ND: features. support_EWS, query_EWQ: from `draw_episodes`. c: liblinear's C, the weight of the losses relative
    to half the squared weights. Raises UsageError for NaN or Inf features.
    """
    if not torch.isfinite(x_ND).all():
        raise UsageError("the features of the few-shot episodes contain NaN or Inf")
    x_ND = x_ND.double()
    episodes, ways, shots = support_EWS.shape
    target_S = torch.arange(ways, device=x_ND.device).repeat_interleave(shots)
    sign_WS = torch.where(target_S == torch.arange(ways, device=x_ND.device)[:, None], 1.0, -1.0).double()
    answer_Q = torch.arange(ways, device=x_ND.device).repeat_interleave(query_EWQ.shape[2])
    accuracies = []
    for begin in range(0, episodes, CHUNK):
        support = x_ND[torch.from_numpy(support_EWS[begin : begin + CHUNK].reshape(-1, ways * shots))]
        query = x_ND[torch.from_numpy(query_EWQ[begin : begin + CHUNK].reshape(len(support), -1))]
        kernel_ESS = support @ support.mT + 1  # + 1: the bias, which liblinear penalises too
        dual_EWS = _solve(kernel_ESS, sign_WS, c)
        scores_EQW = (query @ support.mT + 1) @ dual_EWS.mT
        accuracies.append((scores_EQW.argmax(2) == answer_Q).double().mean(1))
    return torch.cat(accuracies).cpu().numpy()


def _solve(kernel_ESS: Tensor, sign_WS: Tensor, c: float, steps: int = 100, tolerance: float = 1e-9) -> Tensor:
    """Dual weights a [E, W, S]: the minimum of a'Ka / 2 + c * sum log(1 + exp(-sign * Ka)), by damped Newton steps."""
    kernel_E1SS = kernel_ESS[:, None]
    dual = torch.zeros(len(kernel_ESS), *sign_WS.shape, dtype=kernel_ESS.dtype, device=kernel_ESS.device)
    identity = torch.eye(kernel_ESS.shape[1], dtype=kernel_ESS.dtype, device=kernel_ESS.device)

    def margins(dual: Tensor) -> Tensor:
        return (kernel_E1SS @ dual[..., None])[..., 0]

    def objective(dual: Tensor, f: Tensor) -> Tensor:
        return 0.5 * (dual * f).sum(-1) + c * torch.nn.functional.softplus(-sign_WS * f).sum(-1)

    f = margins(dual)
    value = objective(dual, f)
    for _ in range(steps):
        p = torch.sigmoid(-sign_WS * f)
        residual = dual - c * sign_WS * p
        curvature = (c * p * (1 - p))[..., None]
        move = torch.linalg.solve(identity + curvature * kernel_E1SS, -residual)
        moved_f = margins(move)
        slope = (residual * moved_f).sum(-1)
        if bool((-slope <= tolerance * value.clamp(min=1e-12)).all()):
            break
        step = torch.ones_like(value)
        for _ in range(40):
            tried = objective(dual + step[..., None] * move, f + step[..., None] * moved_f)
            too_far = tried > value + 1e-4 * step * slope + 1e-15 * value.abs()
            if not bool(too_far.any()):
                break
            step = torch.where(too_far, step / 2, step)
        dual = dual + step[..., None] * move
        f = f + step[..., None] * moved_f
        value = objective(dual, f)
    return dual
