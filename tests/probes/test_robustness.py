"""Corruption errors and flip rates by hand, and by the formulas of the paper written plainly."""

import numpy as np
import pytest

from fastaugself.probes.robustness import ALEXNET, CORRUPTIONS, flip_rates, mean_ratio


def test_mce_by_hand():
    errors_CN = np.array([[1.0, 0.5, 0.0, 0.5], [0.2, 0.4, 0.6, 0.8]])  # means 0.5 and 0.5
    assert mean_ratio(errors_CN, seed=0).value == pytest.approx(0.5)
    relative = mean_ratio(errors_CN, [0.25, 1.0], seed=0)
    assert relative.value == pytest.approx((0.5 / 0.25 + 0.5 / 1.0) / 2)
    assert relative.low < relative.value < relative.high


def test_mce_is_the_papers_mean_of_ratios_of_sums_over_severities():
    generator = np.random.default_rng(0)
    correct_CSN = generator.random((15, 5, 37)) < 0.3
    published = 0.0
    for c, name in enumerate(CORRUPTIONS):
        own = sum(1 - correct_CSN[c, s].mean() for s in range(5))
        published += own / (5 * ALEXNET[name]) / 15
    errors_CN = 1 - correct_CSN.mean(1)
    found = mean_ratio(errors_CN, [ALEXNET[name] for name in CORRUPTIONS], seed=0)
    assert found.value == pytest.approx(published)


def test_alexnets_own_relative_error_is_one():
    errors_CN = np.array([[ALEXNET[name]] * 3 for name in CORRUPTIONS])
    assert mean_ratio(errors_CN, [ALEXNET[name] for name in CORRUPTIONS], seed=0).value == pytest.approx(1)


def test_flip_rates_by_hand():
    steady, turning = np.array([4, 4, 4, 4, 4]), np.array([1, 2, 2, 1, 1])
    there_and_back = np.array([7, 8, 7, 8])
    found = flip_rates([steady, turning, there_and_back], noise=False)
    assert found.tolist() == [0, 2 / 4, 3 / 3]
    found = flip_rates([steady, turning, there_and_back], noise=True)  # each frame against the first
    assert found.tolist() == [0, 2 / 4, 2 / 3]
    with pytest.raises(ValueError, match="sequence 1 has 1 frame"):
        flip_rates([steady, np.array([3])], noise=False)
