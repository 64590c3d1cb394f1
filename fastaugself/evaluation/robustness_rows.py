"""The rows of `fastaugself eval robustness`: accuracies with intervals, mCE and mFR.

Shape suffixes: N images or sequences, C corruptions.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probes.intervals import Score, accuracy_score
from ..probes.robustness import mean_ratio
from .results import Row
from .robustness import Baseline, ScoredSet

log = logging.getLogger("fastaugself")

Floats = NDArray[np.float64]


def error_rates(tests: Sequence[ScoredSet], found: Sequence[Floats]) -> dict[str, Floats]:
    """By corruption, the error of each image, a mean over severities; by perturbation, the flip rate of each sequence.

    found: for each test set, 1 for each image that is classified rightly, or the flip rate of each sequence.
    """
    by_key: dict[str, list[Floats]] = {}
    for test, values_N in zip(tests, found, strict=True):
        if test.kind != "accuracy":
            by_key.setdefault(test.key, []).append(values_N if test.kind == "flips" else 1 - values_N)
    return {key: np.mean(values, 0) for key, values in by_key.items()}


def score_rows(
    models: tuple[str, ...],
    fusion: str,
    tests: Sequence[ScoredSet],
    found: Sequence[Floats],
    baseline: Baseline | None,
    *,
    seed: int,
) -> list[Row]:
    """The rows of one representation: accuracies, then each corruption and the mCE, then each perturbation and the mFR.

    found: as of `error_rates`. baseline: errors to divide by, for further rows. seed: of the intervals.
    """
    rows: list[Row] = []

    def add(metric: str, score: Score, samples: int, **details: Any) -> None:
        rows.append(Row(models, fusion, metric, score, samples, details))

    pairs = list(zip(tests, found, strict=True))
    for test, correct_N in pairs:
        if test.kind == "accuracy":
            clean = test.name.startswith("clean")
            metric = f"accuracy ({test.name})" if clean else f"accuracy on {test.name}"
            score = accuracy_score(correct_N > 0, test.truth_N, "top1", seed=seed)
            add(metric, score, len(correct_N), classes=len(test.among or np.unique(test.truth_N)))
    errors = error_rates(tests, found)
    for kind, mean in (("corruption", "mCE"), ("flips", "mFR")):
        keys = list(dict.fromkeys(test.key for test in tests if test.kind == kind))
        if not keys:
            continue
        files = "" if any(test.computed for test in tests if test.kind == kind) else " (imagenet-c)"
        suffix = files if kind == "corruption" else " (imagenet-p)"
        for key in keys:
            name = key.rpartition("/")[2]
            if kind == "flips":
                add(f"flip rate under {name}{suffix}", mean_ratio(errors[key][None], seed=seed), len(errors[key]))
                continue
            severities = {str(t.severity): float(v.mean()) for t, v in pairs if t.kind == kind and t.key == key}
            score = mean_ratio(1 - errors[key][None], seed=seed)
            add(f"accuracy under {name}{suffix}", score, len(errors[key]), by_severity=severities)
        for label, score in _means([errors[key] for key in keys], keys, baseline, mean, seed).items():
            names = [key.rpartition("/")[2] for key in keys]
            add(f"{mean}{suffix}{label}", score, len(errors[keys[0]]), over=names)
    return rows


def _means(
    errors: Sequence[Floats], keys: Sequence[str], baseline: Baseline | None, mean: str, seed: int
) -> dict[str, Score]:
    """The mean over corruptions, "", and that of the errors divided by the baseline's."""
    if len({len(errors_N) for errors_N in errors}) > 1:
        log.warning("%s needs the same number of sequences under every perturbation: left out", mean)
        return {}
    stacked_CN = np.stack(errors)
    found = {"": mean_ratio(stacked_CN, seed=seed)}
    if baseline is not None:
        lacking = [key for key in keys if not baseline.values.get(key, 0.0) > 0]
        if lacking:
            log.warning("%s has no error above 0 for %s: %s is not divided by it", baseline.name, lacking[0], mean)
        else:
            divisors = [baseline.values[key] for key in keys]
            found[f" relative to {baseline.name}"] = mean_ratio(stacked_CN, divisors, seed=seed)
    return found
