"""The order of an epoch: a permutation for every size; no sample is lost or repeated on any number of ranks."""

import math
from collections import Counter

import numpy as np
import pytest

from fastaugself.data.order import (
    BLOCK,
    OPEN_BLOCKS,
    blocks_of,
    epoch_batches,
    num_batches,
    quasi_sample_at,
    sample_at,
)
from fastaugself.errors import UsageError

ORDERS = ["random", "quasi-random", "sequential"]
SIZES = [*range(1, 301), *(2**k + d for k in range(9, 18) for d in (-1, 0, 1))]


def shuffled(num_samples, *, seed=0, epoch=0):
    return sample_at(np.arange(num_samples), num_samples=num_samples, seed=seed, epoch=epoch)


def all_ranks(num_samples, batch_size, world, **kwargs):
    """Batches of every rank: [rank][batch]."""
    return [list(epoch_batches(num_samples, batch_size, rank=r, world=world, **kwargs)) for r in range(world)]


# --- the permutation --------------------------------------------------------------------------------------------------


def test_is_a_permutation_for_every_size():
    for n in SIZES:
        assert np.array_equal(np.sort(shuffled(n, seed=n, epoch=3)), np.arange(n)), n


def test_a_position_does_not_depend_on_the_other_positions():
    n = 1000
    everything = shuffled(n, seed=7, epoch=2)
    some = np.array([[999, 0], [500, 0]])
    assert np.array_equal(sample_at(some, num_samples=n, seed=7, epoch=2), everything[some])
    assert sample_at(np.empty(0, np.int64), num_samples=n, seed=7, epoch=2).shape == (0,)


def test_seed_and_epoch_change_the_order():
    n = 1000
    orders = [shuffled(n, seed=s, epoch=e) for s in (0, 1, 2**64 - 1) for e in (0, 1, 2)]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            # Two independent permutations agree at one place on average (Poisson); 12 has a probability of 1e-9.
            assert np.count_nonzero(a == b) < 12


@pytest.mark.slow
def test_every_permutation_of_few_samples_occurs_equally_often():
    for n in (2, 3, 4):
        draws = 100 * math.factorial(n)
        counts = Counter(tuple(shuffled(n, seed=1, epoch=e)) for e in range(draws))
        assert len(counts) == math.factorial(n)
        chi2 = sum((c - 100) ** 2 / 100 for c in counts.values())
        freedom = math.factorial(n) - 1
        assert chi2 < freedom + 5 * math.sqrt(2 * freedom), n


@pytest.mark.parametrize("n", [7, 64, 100, 1000])
def test_every_sample_is_at_every_position_equally_often(n):
    draws, cells = 2000, min(n, 10)
    counts = np.zeros((cells, cells))
    place = np.arange(n) * cells // n
    for epoch in range(draws):
        np.add.at(counts, (place, place[shuffled(n, seed=5, epoch=epoch)]), 1)
    share = np.bincount(place) / n
    expected = draws * n * share[:, None] * share
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), (cells - 1) ** 2
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def test_neighbours_do_not_stay_neighbours():
    n = 10_007
    order = shuffled(n)
    # Lag-1 correlation of a random permutation has a deviation of 1 / sqrt(n), which is 0.01.
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.05
    # Differences of independent values hit 1 - 1/e of all residues.
    assert len(np.unique(np.diff(order) % n)) == pytest.approx((1 - math.exp(-1)) * n, rel=0.05)


@pytest.mark.parametrize("position", [-1, 10])
def test_a_position_outside_is_refused(position):
    with pytest.raises(ValueError, match=r"expected \[0, 10\)"):
        sample_at(np.array([position]), num_samples=10, seed=0, epoch=0)


# --- quasi-random -----------------------------------------------------------------------------------------------------

WINDOW = BLOCK * OPEN_BLOCKS
BOUNDARIES = [n + d for n in (1, BLOCK, 2 * BLOCK, 1000, WINDOW, WINDOW + BLOCK, 2 * WINDOW) for d in (-1, 0, 1)][1:]


def quasi(num_samples, global_batch, *, seed=0, epoch=0):
    return quasi_sample_at(
        np.arange(num_samples), num_samples=num_samples, global_batch=global_batch, seed=seed, epoch=epoch
    )


@pytest.mark.parametrize("global_batch", [1, 3, 8, 24, 100, 255, 256, 1000, 4096])
def test_quasi_random_is_a_permutation_around_every_boundary(global_batch):
    for n in BOUNDARIES:
        assert np.array_equal(np.sort(quasi(n, global_batch, seed=n)), np.arange(n)), n


def test_a_quasi_random_position_does_not_depend_on_the_other_positions():
    n = 2 * WINDOW + 77
    everything = quasi(n, 96, seed=7, epoch=2)
    for some in (np.array([5]), np.array([n - 1, 0, WINDOW])):
        assert np.array_equal(quasi_sample_at(some, num_samples=n, global_batch=96, seed=7, epoch=2), everything[some])


def test_seed_and_epoch_change_the_quasi_random_order():
    orders = [quasi(1000, 8, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)]
    for i, a in enumerate(orders):
        assert all(np.count_nonzero(a == b) < 12 for b in orders[:i])


@pytest.mark.parametrize("world", [1, 2, 8])
def test_a_rank_reads_quasi_random_blocks_once_and_few_at_a_time(world):
    """A thousand random samples would come from almost a thousand blocks."""
    n, batch_size = 16 * WINDOW, 256 // world
    batches = list(epoch_batches(n, batch_size, rank=world - 1, world=world, order="quasi-random", seed=1, epoch=1))
    of_batch = [set(blocks_of(ids, num_samples=n, seed=1, epoch=1).tolist()) for ids in batches]
    reads = Counter(block for blocks in of_batch for block in blocks)
    # A block at the boundary of two lanes is read by both; all other blocks belong to one lane.
    assert len(reads) <= n // BLOCK // world + OPEN_BLOCKS // world
    used_up = BLOCK * OPEN_BLOCKS // 256  # batches
    for k in range(0, len(batches) - used_up, 250):
        open_now = set().union(*of_batch[k : k + used_up])
        assert len(open_now) <= 2 * OPEN_BLOCKS // world
    # A block is used up within two windows of its lane.
    last = {}
    for k, blocks in enumerate(of_batch):
        for block in blocks:
            last.setdefault(block, [k, k])[1] = k
    spans = np.array([b - a for a, b in last.values()])
    assert np.quantile(spans, 0.95) < used_up


def test_quasi_random_batches_come_from_all_over_the_data():
    n = 20 * WINDOW
    for ids in list(epoch_batches(n, 256, order="quasi-random", seed=2))[::200]:
        assert len(np.unique(ids // BLOCK)) > 0.9 * OPEN_BLOCKS
        assert np.abs(np.corrcoef(np.arange(256), ids)[0, 1]) < 0.3
        assert 0.4 < ids.mean() / n < 0.6


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("order", ORDERS)
def test_without_drop_last_every_sample_is_seen_exactly_once(world, order):
    for n in [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300]:
        for batch_size in (2, 5, 16):
            ranks = all_ranks(n, batch_size, world, order=order, drop_last=False, epoch=1)
            seen = np.concatenate([ids for batches in ranks for ids in batches])
            assert np.array_equal(np.sort(seen), np.arange(n)), (n, batch_size)
            sizes = [sum(map(len, batches)) for batches in ranks]
            assert max(sizes) - min(sizes) <= max(1, batch_size), (n, batch_size)
            for rank, batches in enumerate(ranks):
                assert len(batches) == num_batches(n, batch_size, rank=rank, world=world, drop_last=False)
                assert all(0 < len(ids) <= batch_size for ids in batches)


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("order", ORDERS)
def test_with_drop_last_ranks_have_equal_full_batches_and_no_repeats(world, order):
    for n in [1, 8, 63, 64, 65, 128, 129, 300]:
        for batch_size in (3, 8):
            ranks = all_ranks(n, batch_size, world, order=order, epoch=1)
            full = n // (batch_size * world)
            assert all(len(batches) == full for batches in ranks)
            assert all(len(ids) == batch_size for batches in ranks for ids in batches)
            seen = [int(i) for batches in ranks for ids in batches for i in ids]
            assert len(seen) == len(set(seen)) == full * batch_size * world


@pytest.mark.parametrize("order", ORDERS)
def test_a_global_batch_is_the_same_on_any_number_of_ranks(order):
    n, global_batch = 1000, 24
    alone = [set(ids.tolist()) for ids in epoch_batches(n, global_batch, seed=3, epoch=4, order=order)]
    for world in (2, 3, 4, 6, 8):
        ranks = all_ranks(n, global_batch // world, world, seed=3, epoch=4, order=order)
        for k, batch in enumerate(alone):
            assert set(np.concatenate([batches[k] for batches in ranks]).tolist()) == batch


@pytest.mark.parametrize("order", ORDERS)
def test_start_resumes_on_a_different_number_of_ranks(order):
    before = all_ranks(200, 12, 2, seed=1, order=order)
    after = all_ranks(200, 6, 4, seed=1, order=order, start=5)
    seen = [int(i) for batches in before for ids in batches[:5] for i in ids]
    seen += [int(i) for batches in after for ids in batches for i in ids]
    whole = [int(i) for ids in epoch_batches(200, 24, seed=1, order=order) for i in ids]
    assert sorted(seen) == sorted(whole)


def test_evaluation_is_in_the_order_of_the_file():
    ids = np.concatenate(list(epoch_batches(50, 8, order="sequential", drop_last=False)))
    assert np.array_equal(ids, np.arange(50))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "rank": 2, "world": 2}, "rank is 2 of 2 ranks"),
        ({"batch_size": 4, "start": 26}, "start is 26, expected 0 to 25"),
        ({"batch_size": 4, "start": -1}, "start is -1"),
    ],
)
def test_wrong_use_is_named_before_iterating(arguments, message):
    with pytest.raises(UsageError, match=message):
        epoch_batches(100, **arguments)
