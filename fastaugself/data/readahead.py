"""Read-ahead for the quasi-random order: each block is read sequentially before its samples are decoded.

The data go to the operating system's page cache. There any reader finds them when it reads single samples in another
order. This works on every file system with a page cache, including network file systems.
"""

import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from .beton.format import Beton
from .dataset import Dataset
from .order import BLOCK, OPEN_BLOCKS, blocks_of

_GAP = 1 << 16  # bytes; a smaller gap between two samples is read instead of skipped
_CHUNK = 1 << 20  # bytes per read
_READERS = 4  # blocks read concurrently: faster than one on SSDs and networks, acceptable on hard disks


def distance(global_batch: int) -> int:
    """Number of batches to read ahead: as many as use up all open blocks once, limited to [4, 64]."""
    return int(np.clip(BLOCK * OPEN_BLOCKS // global_batch, 4, 64))


def read_ahead(
    dataset: Dataset, ids: Iterator[NDArray[np.int64]], *, seed: int, epoch: int
) -> Generator[NDArray[np.int64]]:
    """Yields each array of `ids` after all blocks of its samples have been read. Raises RunError if the disk fails."""
    seen: dict[int, None] = {}  # blocks already read, least recently used first
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read-ahead") as pool:
        for ids_B in ids:
            blocks = blocks_of(ids_B, num_samples=dataset.num_samples, seed=seed, epoch=epoch).tolist()
            for reading in [pool.submit(_read_block, dataset, first) for first in blocks if first not in seen]:
                reading.result()
            for first in blocks:
                seen.pop(first, None)
                seen[first] = None
            for old in list(seen)[: -2 * OPEN_BLOCKS]:
                del seen[old]
            yield ids_B


def _read_block(dataset: Dataset, first: int) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    ids = (first + np.arange(min(BLOCK, dataset.num_samples))) % dataset.num_samples
    shards = [dataset.locate(int(sample))[0] for sample in ids]
    _, pointers, lengths = dataset.where(ids)
    for shard in dict.fromkeys(shards):
        mine = np.array([other is shard for other in shards])
        for start, stop in runs(pointers[mine], lengths[mine]):
            _read(shard, start, stop, buffer)


def runs(pointers: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Byte ranges (start, stop) of a file that cover these data, in order, with neighbouring ranges merged."""
    order = np.argsort(pointers, kind="stable")
    starts, stops = pointers[order], np.maximum.accumulate((pointers + lengths)[order])
    new = np.flatnonzero(starts[1:] - stops[:-1] > _GAP) + 1
    firsts, lasts = np.concatenate([[0], new]), np.concatenate([new, [len(starts)]]) - 1
    return list(zip(starts[firsts].tolist(), stops[lasts].tolist(), strict=True))


def _read(shard: Beton, start: int, stop: int, buffer: memoryview) -> None:
    while start < stop:
        try:
            found = os.preadv(shard.fileno(), [buffer[: stop - start]], start)
        except OSError as error:
            raise RunError(f"{shard.path} cannot be read ({error.strerror}); is its disk there?") from error
        if not found:
            raise RunError(f"{shard.path} became shorter while it was in use; copy or write it again")
        start += found
