"""The order of an epoch, addressed: which sample stands at a position is computed, not stored.

A keyed permutation of [0, N), a Feistel network with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary
finite domains"), needs O(1) memory, so any rank finds any batch of any epoch at once: resume in the middle of an epoch
and another number of ranks are only other positions.

Shape suffixes: B the samples of a batch, N samples.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

_ROUNDS = 8
_MASK = (1 << 64) - 1
_MIN_BITS = 6  # smaller networks would reach too few of the permutations of a handful of samples


def sample_at(positions: NDArray[np.integer], *, num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The samples at `positions` of a shuffled epoch; over [0, num_samples) a permutation.

    positions: integers in [0, num_samples), any shape. seed, epoch: integers; their low 64 bits choose the permutation.
    Returns int64 of the same shape.
    """
    positions = np.asarray(positions)
    if positions.size and (positions.min() < 0 or positions.max() >= num_samples):
        raise ValueError(f"positions reach from {positions.min()} to {positions.max()}, expected [0, {num_samples})")
    keys = _keys(seed, epoch)
    bits = max(_MIN_BITS, (num_samples - 1).bit_length())
    # A rotation, also keyed, since the network alone maps few positions onto themselves differently when N is tiny.
    walker = (positions.astype(np.uint64).reshape(-1) + np.uint64(keys[-1] % num_samples)) % np.uint64(num_samples)
    walker = _feistel(walker, bits, keys)
    while len(outside := np.flatnonzero(walker >= num_samples)):
        walker[outside] = _feistel(walker[outside], bits, keys)
    return walker.astype(np.int64).reshape(positions.shape)


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
    shuffle: bool = True,
    drop_last: bool = True,
    start: int = 0,
) -> Iterator[NDArray[np.int64]]:
    """The sample ids of each batch of one rank, from batch `start` on.

    batch_size: per rank. Global batch k holds the positions [k*G, (k+1)*G) with G = batch_size * world, and rank r
    takes the r-th contiguous slice of it: equal G gives equal global batches on any number of ranks. What does not fill
    a global batch is dropped, or without drop_last divided among the ranks as evenly as it goes; nothing is seen twice.
    shuffle: positions are those of `sample_at`, else sample ids themselves.

    Yields int64 [B].
    """
    batches = num_batches(num_samples, batch_size, rank=rank, world=world, drop_last=drop_last)
    if not 0 <= start <= batches:
        raise UsageError(f"start is {start}, expected 0 to {batches}, the batches of an epoch")
    return _batches(num_samples, batch_size, seed, epoch, rank, world, shuffle, range(start, batches))


def _batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, rank: int, world: int, shuffle: bool, which: range
) -> Iterator[NDArray[np.int64]]:
    for k in which:
        first = k * batch_size * world
        if first + batch_size * world <= num_samples:
            start, stop = first + rank * batch_size, first + (rank + 1) * batch_size
        else:
            low, high = _share(num_samples - first, rank, world)
            start, stop = first + low, first + high
        ids_B = np.arange(start, stop)
        yield sample_at(ids_B, num_samples=num_samples, seed=seed, epoch=epoch) if shuffle else ids_B


def _share(rest: int, rank: int, world: int) -> tuple[int, int]:
    return rest * rank // world, rest * (rank + 1) // world


def _check(num_samples: int, batch_size: int, rank: int, world: int) -> None:
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}, expected at least 1")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size} per rank, expected at least 1")
    if not 0 <= rank < world:
        raise UsageError(f"rank is {rank} of {world} ranks, expected 0 to {world - 1}")


def _keys(seed: int, epoch: int) -> list[int]:
    """64-bit keys of the rounds, and one for the rotation: splitmix64 (Steele 2014) seeded with (seed, epoch)."""
    state = _mix(_mix(seed & _MASK) ^ (epoch & _MASK))
    keys = []
    for _ in range(_ROUNDS + 1):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        keys.append(_mix(state))
    return keys


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _feistel(x: NDArray[np.uint64], bits: int, keys: list[int]) -> NDArray[np.uint64]:
    """A permutation of [0, 2**bits): halves of bits // 2 and the rest, which change places every round."""
    low_bits, high_bits = bits - bits // 2, bits // 2
    high, low = x >> np.uint64(low_bits), x & np.uint64((1 << low_bits) - 1)
    for key in keys[:_ROUNDS]:
        # The multiplier of splitmix64's first step, keyed by addition; the upper bits of a product are the mixed ones.
        mixed = (low + np.uint64(key)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
        high, low = low, high ^ (mixed >> np.uint64(64 - high_bits))
        low_bits, high_bits = high_bits, low_bits
    return (high << np.uint64(low_bits)) | low
