"""The order of an epoch, addressed: which sample stands at a position is computed, not stored.

A keyed permutation of [0, N), a Feistel network with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary
finite domains"), needs O(1) memory, so any rank finds any batch of any epoch at once: resume in the middle of an epoch
and another number of ranks are only other positions.

`quasi-random` (FFCV's term) is for disks that are slow at random access. Neighbouring samples form blocks, which are
shuffled, and the epoch draws from a few blocks at a time until they are used up:

    position -> lane, place in the lane     a global batch takes equally from every lane; lanes are parts of the epoch
             -> window, place in it         a window is a few blocks of one lane, shuffled together
             -> block, sample of the block  blocks are shuffled over the whole epoch

A rank's slice of the global batches is a few lanes, so that each rank reads blocks of its own, one after the other.

Shape suffixes: B the samples of a batch, N samples, L lanes.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Order = Literal["random", "quasi-random", "sequential"]

BLOCK = 64  # neighbouring samples that are read together: about 7 MB of ImageNet
OPEN_BLOCKS = 128  # that a quasi-random epoch draws from at a time, over all ranks: about 0.9 GB of ImageNet

_ROUNDS = 8
_MASK = (1 << 64) - 1
_STEPS = np.arange(1, _ROUNDS + 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_MIN_BITS = 6  # smaller networks would reach too few of the permutations of a handful of samples


def sample_at(positions: NDArray[np.integer], *, num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The samples at `positions` of a shuffled epoch; over [0, num_samples) a permutation.

    positions: integers in [0, num_samples), any shape. seed, epoch: integers; their low 64 bits choose the permutation.
    Returns int64 of the same shape.
    """
    positions = np.asarray(positions)
    if positions.size and (positions.min() < 0 or positions.max() >= num_samples):
        raise ValueError(f"positions reach from {positions.min()} to {positions.max()}, expected [0, {num_samples})")
    keys = _keys(seed, epoch).reshape(-1, 1)
    return _permute(positions.reshape(-1), num_samples, keys).reshape(positions.shape)


def quasi_sample_at(
    positions: NDArray[np.integer], *, num_samples: int, global_batch: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The samples at `positions` of a quasi-random epoch; over [0, num_samples) a permutation.

    positions: integers in [0, num_samples), [B]. global_batch: samples of a step over all ranks; another one gives
    another order. seed, epoch: as for `sample_at`. Returns int64 [B].
    """
    lanes = math.gcd(global_batch, OPEN_BLOCKS)
    places_B = _places_in_lanes(np.asarray(positions, np.int64), num_samples, global_batch, lanes)
    size = OPEN_BLOCKS // lanes * BLOCK  # of a window
    windows_B = places_B // size
    keys = _window_keys(seed, epoch, windows_B)
    drawn_B = places_B % size
    last_B = windows_B == num_samples // size  # the last window is shorter, or empty
    for chosen_B, count in ((~last_B, size), (last_B, num_samples % size)):
        drawn_B[chosen_B] = _permute(drawn_B[chosen_B], count, keys[:, chosen_B])
    blocks_B, inside_B = np.divmod(windows_B * size + drawn_B, BLOCK)
    whole = num_samples // BLOCK
    # The block that is not whole stays the last; the rotation has other samples in it in every epoch.
    shuffled_B = blocks_B < whole
    blocks_B[shuffled_B] = sample_at(blocks_B[shuffled_B], num_samples=whole, seed=seed, epoch=epoch)
    return (blocks_B * BLOCK + inside_B + _rotation(num_samples, seed, epoch)) % num_samples


def blocks_of(ids_B: NDArray[np.int64], *, num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The blocks of a quasi-random epoch that hold these samples, each once: the first sample of every block.

    A block is BLOCK samples from there on, where the first sample of the data follows the last.
    """
    rotation = _rotation(num_samples, seed, epoch)
    blocks = np.unique((ids_B - rotation) % num_samples // BLOCK)
    return (blocks * BLOCK + rotation) % num_samples


def num_batches(num_samples: int, batch_size: int, *, rank: int = 0, world: int = 1, drop_last: bool = True) -> int:
    """Batches of one rank in an epoch. Without drop_last a rank whose share of the rest is empty has one fewer."""
    _check(num_samples, batch_size, rank, world)
    full, rest = divmod(num_samples, batch_size * world)
    if drop_last:
        return full
    start, stop = _share(rest, rank, world)
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
    """The sample ids of each batch of one rank, from batch `start` on.

    batch_size: per rank. Global batch k holds the positions [k*G, (k+1)*G) with G = batch_size * world, and rank r
    takes the r-th contiguous slice of it: equal G gives equal global batches on any number of ranks. What does not fill
    a global batch is dropped, or without drop_last divided among the ranks as evenly as it goes; nothing is seen twice.
    order: "random", "quasi-random" (this module's docstring), or "sequential", the order of the file.

    Yields int64 [B].
    """
    batches = num_batches(num_samples, batch_size, rank=rank, world=world, drop_last=drop_last)
    if not 0 <= start <= batches:
        raise UsageError(f"start is {start}, expected 0 to {batches}, the batches of an epoch")
    return _batches(num_samples, batch_size, seed, epoch, rank, world, order, range(start, batches))


def _batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, rank: int, world: int, order: Order, which: range
) -> Iterator[NDArray[np.int64]]:
    for k in which:
        first = k * batch_size * world
        if first + batch_size * world <= num_samples:
            start, stop = first + rank * batch_size, first + (rank + 1) * batch_size
        else:
            low, high = _share(num_samples - first, rank, world)
            start, stop = first + low, first + high
        ids_B = np.arange(start, stop)
        if order == "random":
            ids_B = sample_at(ids_B, num_samples=num_samples, seed=seed, epoch=epoch)
        elif order == "quasi-random":
            together = batch_size * world
            ids_B = quasi_sample_at(ids_B, num_samples=num_samples, global_batch=together, seed=seed, epoch=epoch)
        yield ids_B


def _share(rest: int, rank: int, world: int) -> tuple[int, int]:
    return rest * rank // world, rest * (rank + 1) // world


def _check(num_samples: int, batch_size: int, rank: int, world: int) -> None:
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}, expected at least 1")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size} per rank, expected at least 1")
    if not 0 <= rank < world:
        raise UsageError(f"rank is {rank} of {world} ranks, expected 0 to {world - 1}")


def _places_in_lanes(positions_B: NDArray[np.int64], count: int, together: int, lanes: int) -> NDArray[np.int64]:
    """Lane l is the l-th part of [0, count); global batch k takes the k-th `together / lanes` places of every lane.

    What is left in the lanes after the last full global batch follows lane by lane.
    """
    share, full = together // lanes, count // together
    ends_L = np.arange(1, lanes + 1) * count // lanes
    starts_L = np.arange(lanes) * count // lanes
    batches_B, inside_B = np.divmod(positions_B, together)
    lanes_B = inside_B // share
    places_B = starts_L[lanes_B] + batches_B * share + inside_B % share
    rest_B = positions_B >= full * together
    if rest_B.any():
        left_L = ends_L - starts_L - full * share
        before_L = np.cumsum(left_L) - left_L
        rank_B = positions_B[rest_B] - full * together
        lanes_B = np.searchsorted(before_L + left_L, rank_B, side="right")
        places_B[rest_B] = ends_L[lanes_B] - left_L[lanes_B] + rank_B - before_L[lanes_B]
    return places_B


def _rotation(num_samples: int, seed: int, epoch: int) -> int:
    return int(_keys(seed, epoch)[0] % np.uint64(num_samples))


@lru_cache(16)
def _keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    """64-bit keys of the rounds, and one for the rotation: splitmix64 (Steele 2014) seeded with (seed, epoch)."""
    return _mix(_state(seed, epoch) + _STEPS)


def _window_keys(seed: int, epoch: int, windows_B: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys [R, B], other ones in every window."""
    state_B = _mix(_state(seed, epoch) ^ (windows_B.astype(np.uint64) + np.uint64(1)))
    return _mix(state_B + _STEPS[:, None])


def _state(seed: int, epoch: int) -> NDArray[np.uint64]:
    return _mix(_mix(np.array([seed & _MASK], np.uint64)) ^ np.uint64(epoch & _MASK))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _permute(positions: NDArray[np.integer], count: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A permutation of [0, count). keys: uint64 [R, 1], or [R, B] for a permutation of its own for each position."""
    if not positions.size:
        return np.empty(0, np.int64)
    bits = max(_MIN_BITS, (count - 1).bit_length())
    # A rotation, also keyed, since the network alone maps few positions onto themselves differently when N is tiny.
    walker = (positions.astype(np.uint64) + keys[-1] % np.uint64(count)) % np.uint64(count)
    walker = _feistel(walker, bits, keys)
    while len(outside := np.flatnonzero(walker >= count)):
        walker[outside] = _feistel(walker[outside], bits, keys if keys.shape[1] == 1 else keys[:, outside])
    return walker.astype(np.int64)


def _feistel(x: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of [0, 2**bits): halves of bits // 2 and the rest, which change places every round."""
    low_bits, high_bits = bits - bits // 2, bits // 2
    high, low = x >> np.uint64(low_bits), x & np.uint64((1 << low_bits) - 1)
    for key in keys[:_ROUNDS]:
        # The multiplier of splitmix64's first step, keyed by addition; the upper bits of a product are the mixed ones.
        mixed = (low + key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
        high, low = low, high ^ (mixed >> np.uint64(64 - high_bits))
        low_bits, high_bits = high_bits, low_bits
    return (high << np.uint64(low_bits)) | low
