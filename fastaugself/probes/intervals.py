"""Confidence intervals of test scores, by the percentile bootstrap over samples, or the jackknife.

Shape suffixes: N samples.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .accuracy import accuracy

RESAMPLES = 1000
CONFIDENCE = 0.95
JACKKNIFE_GROUPS = 10

Index = NDArray[np.int64]


class Score(NamedTuple):
    """A score on all samples (value) and its 95 % confidence interval (low, high)."""

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
    """A statistic on all samples, with its percentile bootstrap interval.

    statistic: function of sample indices, with repetitions. count: number of samples N. seed: of the resampling.
    strata_N: int64 class of each sample, for a stratified bootstrap (every class keeps its number of samples).
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
    """The mean of one value per sample, with its bootstrap interval."""
    return bootstrap(lambda index: float(values_N[index].mean()), len(values_N), seed=seed)


def normal_score(values_N: NDArray[np.float64]) -> Score:
    """The mean of one value per episode with 1.96 standard errors, as few-shot results are published."""
    mean = float(values_N.mean())
    half = 1.96 * float(values_N.std()) / len(values_N) ** 0.5
    return Score(mean, mean - half, mean + half)


def jackknife_groups(count: int, *, seed: int, groups: int = JACKKNIFE_GROUPS) -> list[Index]:
    """Positions of `count` samples in random groups of equal sizes (up to one), for `jackknife_score`."""
    return np.array_split(np.random.default_rng(seed).permutation(count), min(groups, count))


def jackknife_score(value: float, without_G: Sequence[float]) -> Score:
    """A statistic of all samples, with 1.96 standard errors of the delete-a-group jackknife.

    For statistics that repeated samples would bias, such as a rank, which rules out the bootstrap. without_G: the
    statistic without the samples of each group of `jackknife_groups`.
    """
    found = np.asarray(without_G, np.float64)
    half = 1.96 * float(np.sqrt((len(found) - 1) * np.mean((found - found.mean()) ** 2)))
    return Score(value, value - half, value + half)


def accuracy_score(correct_N: NDArray[np.bool_], labels_N: Index, metric: str, *, seed: int) -> Score:
    """`accuracy` with its bootstrap interval, stratified by class for "mean_class"."""
    strata_N = labels_N if metric == "mean_class" else None
    return bootstrap(
        lambda index: accuracy(correct_N[index], labels_N[index], metric),
        len(correct_N),
        seed=seed,
        strata_N=strata_N,
    )
