"""The reader on FFCV: its pipelines, its compiler and its JPEG decoder, with each photo decoded once.

FFCV compiles our decoder into a function of some samples; the threads that call it are ours. FFCV's own loop
(EpochIterator) waits for ever when its thread fails, leaves the thread behind when the consumer stops early, and hands
out buffers that it overwrites with the next batch but one. Its parallel loops (numba's) keep every thread waiting for
the last one at the end of a batch, and can end a process that uses numba's threads elsewhere.

Shape suffixes: B images of a batch, N samples or bytes.
"""

import importlib.util
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from ...errors import UsageError
from ..beton.format import IMAGE
from ..dataset import Dataset
from ..ragged import RaggedBatch
from .pooled import PooledSource

# Pools that nobody uses, by their threads. A forked process has the pools, but not the threads.
_pools: defaultdict[int, list[ThreadPoolExecutor]] = defaultdict(list)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def why_not() -> str | None:
    """What keeps FFCV from being used in this process, None if nothing does."""
    if importlib.util.find_spec("ffcv") is None:
        return "ffcv is not installed (`make setup` builds it)"
    try:
        with _threads_kept():
            from . import ffcv_decoder  # noqa: F401
    except (ImportError, OSError) as error:
        return f"ffcv cannot be imported ({error}; `make setup` installs what it needs)"
    return None


class FfcvSource(PooledSource):
    """Decodes the samples of `dataset` with FFCV on `workers` threads.

    Raises UsageError where FFCV cannot be used.
    """

    step = 8  # images: calling compiled code from Python has its price

    def __init__(self, dataset: Dataset, *, workers: int):
        if reason := why_not():
            raise UsageError(f"FFCV cannot be used: {reason}; `native` reads the same files without it")
        super().__init__(dataset, workers=workers)
        with _threads_kept():
            from .ffcv_decoder import compiled_decoder

            self._decode = compiled_decoder(dataset.shards[0])

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        """A pool that is kept for the next epoch: FFCV makes a decoder for each thread, and never frees it."""
        kept = _pools[self._workers]
        pool = kept.pop() if kept else ThreadPoolExecutor(self._workers, thread_name_prefix="fastaugself-ffcv")
        try:
            yield pool
        finally:
            kept.append(pool)

    def _decoder(self, batch: RaggedBatch) -> Callable[[int, int], Sequence[int]]:
        ids_B, pixels, offsets_B = batch.ids_B.numpy(), batch.pixels.numpy(), batch.offsets_B.numpy()
        intact_B, records_B = np.zeros(len(ids_B), np.bool_), np.zeros(len(ids_B), IMAGE)
        sizes_B2 = batch.sizes_B2.numpy()
        records_B["mode"], records_B["data_ptr"] = self._dataset.modes_N[ids_B], np.arange(len(ids_B))
        records_B["height"], records_B["width"] = sizes_B2[:, 0], sizes_B2[:, 1]
        fds_B, pointers_B, bytes_B = self._dataset.where(ids_B)
        stored = fds_B.astype(np.uint32), pointers_B.astype(np.uint64), bytes_B.astype(np.uint64)

        def decode(first: int, last: int) -> Sequence[int]:
            some = slice(first, last)
            self._decode(records_B[some], *stored, pixels, offsets_B[some], intact_B[some])
            failed: list[int] = (first + np.flatnonzero(~intact_B[some])).tolist()
            return failed

        return decode


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Undoes FFCV's setting the number of threads of torch and numba: to 1 at import, to its own with every Loader."""
    import numba

    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)
