"""The order of the samples in an epoch: the sample at a position is computed, not stored.

The order is a keyed permutation of [0, N): a Feistel network with cycle walking (Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"). It takes O(1) memory, and any rank can compute any batch of any epoch directly. So a run can
resume in the middle of an epoch, and on a different number of ranks.

`quasi-random` (FFCV's term) is for disks that are slow at random access. Neighbouring samples form blocks. The blocks
are shuffled, and samples are drawn from a few open blocks at a time until these are used up:

    position -> lane, place in the lane     lanes divide the epoch; a global batch takes equally many from each lane
             -> window, place in the window a window is a few blocks of one lane, shuffled together
             -> block, sample in the block  blocks are shuffled over the whole epoch

A rank's slice of the global batches consists of a few lanes, so each rank reads different blocks, one after the other.

Shape suffixes: B batch, N all samples, L lanes, R rounds.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Order = Literal["random", "quasi-random", "sequential"]

BLOCK = 64  # neighbouring samples that are read together: about 7 MB on ImageNet
OPEN_BLOCKS = 128  # blocks from which samples are drawn at a time, over all ranks: about 0.9 GB on ImageNet

_ROUNDS = 8
_MASK = (1 << 64) - 1
_STEPS = np.arange(1, _ROUNDS + 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_MIN_BITS = 6  # a smaller network would produce too few of the possible permutations of a handful of samples


def sample_at(positions: NDArray[np.integer], *, num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The sample ids at `positions` of a shuffled epoch; a permutation of [0, num_samples).

    positions: integers in [0, num_samples), any shape. seed, epoch: integers; their low 64 bits select the permutation.
    Returns int64 of the same shape. Raises ValueError for a position out of range.
    """
    positions = np.asarray(positions)
    if positions.size and (positions.min() < 0 or positions.max() >= num_samples):
        raise ValueError(f"positions reach from {positions.min()} to {positions.max()}, expected [0, {num_samples})")
    keys = _keys(seed, epoch).reshape(-1, 1)
    return _permute(positions.reshape(-1), num_samples, keys).reshape(positions.shape)


def quasi_sample_at(
    positions: NDArray[np.integer], *, num_samples: int, global_batch: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The sample ids at `positions` of a quasi-random epoch; a permutation of [0, num_samples).

    positions: integers [B] in [0, num_samples). global_batch: global batch size; the order depends on it. seed, epoch:
    see `sample_at`. Returns int64 [B].
    """
    lanes = math.gcd(global_batch, OPEN_BLOCKS)
    places_B = _places_in_lanes(np.asarray(positions, np.int64), num_samples, global_batch, lanes)
    size = OPEN_BLOCKS // lanes * BLOCK  # samples per window
    windows_B = places_B // size
    keys = _window_keys(seed, epoch, windows_B)
    drawn_B = places_B % size
    last_B = windows_B == num_samples // size  # the last window may be shorter
    for chosen_B, count in ((~last_B, size), (last_B, num_samples % size)):
        drawn_B[chosen_B] = _permute(drawn_B[chosen_B], count, keys[:, chosen_B])
    blocks_B, inside_B = np.divmod(windows_B * size + drawn_B, BLOCK)
    whole = num_samples // BLOCK
    # The incomplete block always comes last; because of the rotation it holds different samples in every epoch.
    shuffled_B = blocks_B < whole
    blocks_B[shuffled_B] = sample_at(blocks_B[shuffled_B], num_samples=whole, seed=seed, epoch=epoch)
    return (blocks_B * BLOCK + inside_B + _rotation(num_samples, seed, epoch)) % num_samples


def blocks_of(ids_B: NDArray[np.int64], *, num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The blocks of a quasi-random epoch that contain these samples, as the id of the first sample of each block.

    A block consists of BLOCK consecutive ids, which wrap around from the last sample to the first. Each block is
    returned once. ids_B: int64 [B]. Returns int64.
    """
    rotation = _rotation(num_samples, seed, epoch)
    blocks = np.unique((ids_B - rotation) % num_samples // BLOCK)
    return (blocks * BLOCK + rotation) % num_samples


def num_batches(num_samples: int, batch_size: int, *, rank: int = 0, world: int = 1, drop_last: bool = True) -> int:
    """Batches per epoch on one rank; without drop_last, a rank that gets no sample of the last batch has one fewer."""
    _check(num_samples, batch_size, rank, world)
    full, rest = divmod(num_samples, batch_size * world)
    if drop_last:
        return full
    start, stop = _slice_of_rank(rest, rank, world)
    return full + (stop > start)


def epoch_batches(
    num_samples: int,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    order: Order = "random",
    drop_last: bool = True,
    start: int = 0,
) -> Iterator[NDArray[np.int64]]:
    """Yields the sample ids of each batch of one rank, int64 [B], starting with batch `start`.

    batch_size: per rank. Global batch k holds the positions [k*G, (k+1)*G), with G = batch_size * world, and rank r
    takes its r-th contiguous slice: with equal G, the global batches are the same on any number of ranks. An incomplete
    last batch is dropped, or, without drop_last, divided among the ranks as evenly as possible. No sample is seen
    twice. order: "random", "quasi-random" (see the top of this module), or "sequential", the order of the files.

    Raises UsageError for arguments out of range, before the first batch.
    """
    batches = num_batches(num_samples, batch_size, rank=rank, world=world, drop_last=drop_last)
    if not 0 <= start <= batches:
        raise UsageError(f"start is {start}, expected 0 to {batches}, the number of batches in an epoch")
    return _batches(num_samples, batch_size, seed, epoch, rank, world, order, range(start, batches))


def _batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, rank: int, world: int, order: Order, which: range
) -> Iterator[NDArray[np.int64]]:
    for k in which:
        first = k * batch_size * world
        if first + batch_size * world <= num_samples:
            start, stop = first + rank * batch_size, first + (rank + 1) * batch_size
        else:
            low, high = _slice_of_rank(num_samples - first, rank, world)
            start, stop = first + low, first + high
        ids_B = np.arange(start, stop)
        if order == "random":
            ids_B = sample_at(ids_B, num_samples=num_samples, seed=seed, epoch=epoch)
        elif order == "quasi-random":
            global_batch = batch_size * world
            ids_B = quasi_sample_at(ids_B, num_samples=num_samples, global_batch=global_batch, seed=seed, epoch=epoch)
        yield ids_B


def _slice_of_rank(rest: int, rank: int, world: int) -> tuple[int, int]:
    return rest * rank // world, rest * (rank + 1) // world


def _check(num_samples: int, batch_size: int, rank: int, world: int) -> None:
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}, expected at least 1")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size} per rank, expected at least 1")
    if not 0 <= rank < world:
        raise UsageError(f"rank is {rank} of {world} ranks, expected 0 to {world - 1}")


def _places_in_lanes(positions_B: NDArray[np.int64], count: int, global_batch: int, lanes: int) -> NDArray[np.int64]:
    """The place in [0, count) at each position, where lane l is the l-th of `lanes` contiguous parts of [0, count).

    Global batch k takes the k-th `global_batch / lanes` places of every lane. The places that remain after the last
    full global batch follow lane by lane.
    """
    per_lane, full = global_batch // lanes, count // global_batch
    ends_L = np.arange(1, lanes + 1) * count // lanes
    starts_L = np.arange(lanes) * count // lanes
    batches_B, inside_B = np.divmod(positions_B, global_batch)
    lanes_B = inside_B // per_lane
    places_B = starts_L[lanes_B] + batches_B * per_lane + inside_B % per_lane
    rest_B = positions_B >= full * global_batch
    if rest_B.any():
        left_L = ends_L - starts_L - full * per_lane
        before_L = np.cumsum(left_L) - left_L
        rank_B = positions_B[rest_B] - full * global_batch
        lanes_B = np.searchsorted(before_L + left_L, rank_B, side="right")
        places_B[rest_B] = ends_L[lanes_B] - left_L[lanes_B] + rank_B - before_L[lanes_B]
    return places_B


def _rotation(num_samples: int, seed: int, epoch: int) -> int:
    return int(_keys(seed, epoch)[0] % np.uint64(num_samples))


@lru_cache(16)
def _keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    """64-bit keys, one per round and one for the rotation, from splitmix64 (Steele 2014) seeded with (seed, epoch)."""
    return _mix(_state(seed, epoch) + _STEPS)


def _window_keys(seed: int, epoch: int, windows_B: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys of the rounds, uint64 [R, B]; different in every window."""
    state_B = _mix(_state(seed, epoch) ^ (windows_B.astype(np.uint64) + np.uint64(1)))
    return _mix(state_B + _STEPS[:, None])


def _state(seed: int, epoch: int) -> NDArray[np.uint64]:
    return _mix(_mix(np.array([seed & _MASK], np.uint64)) ^ np.uint64(epoch & _MASK))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _permute(positions: NDArray[np.integer], count: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A keyed permutation of [0, count). keys: uint64 [R, 1], or [R, B] for a separate permutation per position."""
    if not positions.size:
        return np.empty(0, np.int64)
    bits = max(_MIN_BITS, (count - 1).bit_length())
    # A keyed rotation first: for tiny N, the network alone gives too few different permutations.
    walker = (positions.astype(np.uint64) + keys[-1] % np.uint64(count)) % np.uint64(count)
    walker = _feistel(walker, bits, keys)
    while len(outside := np.flatnonzero(walker >= count)):
        walker[outside] = _feistel(walker[outside], bits, keys if keys.shape[1] == 1 else keys[:, outside])
    return walker.astype(np.int64)


def _feistel(x: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A Feistel permutation of [0, 2**bits); the halves of bits // 2 and bits - bits // 2 swap in every round."""
    low_bits, high_bits = bits - bits // 2, bits // 2
    high, low = x >> np.uint64(low_bits), x & np.uint64((1 << low_bits) - 1)
    for key in keys[:_ROUNDS]:
        # The first multiplier of splitmix64, keyed by addition. Only the upper bits of a product are well mixed.
        mixed = (low + key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
        high, low = low, high ^ (mixed >> np.uint64(64 - high_bits))
        low_bits, high_bits = high_bits, low_bits
    return (high << np.uint64(low_bits)) | low
