"""Splits of a data set: cuts, limits and validation splits."""

import numpy as np
import pytest
import torch

from fastaugself.errors import UsageError
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.splits import cut, cut_by_class, require_classes, thin, with_val


def test_cut_matches_torchs_random_split():
    kept, held_out = cut(50, 5, seed=43)
    first, second = torch.utils.data.random_split(range(50), [45, 5], generator=torch.Generator().manual_seed(43))
    assert kept.tolist() == list(first.indices) and held_out.tolist() == list(second.indices)


def test_cut_by_class_is_stratified_and_keeps_a_sample_of_each_class():
    labels = np.array([0] * 10 + [1] * 3 + [2])
    kept, held_out = cut_by_class(labels, 0.2, seed=0)
    assert np.bincount(labels[held_out], minlength=3).tolist() == [2, 1, 0]
    assert sorted([*kept, *held_out]) == list(range(14))


def test_a_limit_on_samples_is_stratified_by_class():
    labels = np.array([0] * 80 + [1] * 20 + [2])
    chosen = thin(labels, 31, seed=0)
    counts = np.bincount(labels[chosen])
    assert len(chosen) == len(set(chosen)) == 31 and counts[2] == 1 and 22 <= counts[0] <= 26
    assert set(labels[thin(labels, 2, seed=0)]) == {0, 1, 2}


def test_splits_with_different_classes_are_refused(photos):
    dataset = read_dataset(photos)
    require_classes(dataset, ("train", "test"))
    (photos / "test" / "coffee").rename(photos / "train" / "tea")
    dataset = read_dataset(photos)
    with pytest.raises(UsageError, match=r"class coffee .2 in all. is missing from the test split"):
        require_classes(dataset, ("train", "test"))
    (photos / "train" / "coffee").rename(photos / "test" / "coffee")
    with pytest.raises(UsageError, match=r"class coffee .1 in all. is in the test split but not in train"):
        require_classes(read_dataset(photos), ("train", "test"))


def test_a_validation_split_is_drawn_from_train(photos):
    dataset = with_val(read_dataset(photos), seed=0)
    assert [len(dataset.splits[name]) for name in ("train", "val", "test")] == [14, 2, 8]
    assert not {*dataset.splits["train"].names} & {*dataset.splits["val"].names}
