"""Confidence intervals of scores on a test set, by the percentile bootstrap over its samples.

Shape suffixes: N samples, R resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95

Index = NDArray[np.int64]


class Score(NamedTuple):
    """value: on all samples. low, high: ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[[Index], float],
    count: int,
    *,
    seed: int,
    strata_N: Index | None = None,
    resamples: int = RESAMPLES,
) -> Score:
    """A statistic of sample indices, with its interval.

    strata_N: class of each sample, where every class keeps its number of samples.
    """
    random = np.random.default_rng(seed)
    groups = [np.arange(count)] if strata_N is None else [np.flatnonzero(strata_N == c) for c in np.unique(strata_N)]
    values = [
        statistic(np.concatenate([group[random.integers(0, len(group), len(group))] for group in groups]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Score(statistic(np.arange(count)), float(low), float(high))


def mean_score(values_N: NDArray[np.float64], *, seed: int) -> Score:
    """The mean of one value per sample."""
    return bootstrap(lambda index: float(values_N[index].mean()), len(values_N), seed=seed)


def normal_score(values_N: NDArray[np.float64]) -> Score:
    """The mean with 1.96 standard errors, as few-shot results are published."""
    mean = float(values_N.mean())
    half = 1.96 * float(values_N.std()) / len(values_N) ** 0.5
    return Score(mean, mean - half, mean + half)


def accuracy(correct_N: NDArray[np.bool_], labels_N: Index, metric: str, *, seed: int) -> Score:
    """Share of right answers over samples ("top1") or as the mean over classes ("mean_class"), in [0, 1].

    The interval of the mean over classes keeps the number of samples of each class.
    """
    right_N = correct_N.astype(np.float64)
    if metric == "top1":
        return mean_score(right_N, seed=seed)
    _, index_N, counts_C = np.unique(labels_N, return_inverse=True, return_counts=True)

    def mean_class(index: Index) -> float:
        hits_C = np.bincount(index_N[index], weights=right_N[index], minlength=len(counts_C))
        return float((hits_C / counts_C).mean())

    return bootstrap(mean_class, len(right_N), seed=seed, strata_N=labels_N)
