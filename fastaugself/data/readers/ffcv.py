"""The FFCV reader: FFCV's pipeline compiler and JPEG decoder, with each photo decoded once.

FFCV compiles our decoder operation to a function of several samples, which our own threads call. We do not use FFCV's
loop (EpochIterator): it hangs when its thread fails, leaks the thread when the consumer stops early, and overwrites its
buffers two batches later. We do not use its parallel numba loops either: all threads wait for the slowest one at the
end of a batch, and they can crash a process that uses numba's threads elsewhere.

Shape suffixes: B batch, N all samples or bytes.
"""

import importlib.util
import os
import warnings
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

# Idle pools by their number of threads. A forked process inherits the pools, but not their threads.
idle_pools: defaultdict[int, list[ThreadPoolExecutor]] = defaultdict(list)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=idle_pools.clear)


def why_not() -> str | None:
    """Why FFCV cannot be used in this process, None if it can."""
    if importlib.util.find_spec("ffcv") is None:
        return "ffcv is not installed (`make setup` builds it)"
    try:
        with threads_kept(), _plain_dictionaries(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, in a notebook without widgets
            from . import ffcv_decoder  # noqa: F401
    except (ImportError, OSError) as error:
        return f"ffcv cannot be imported ({error}; `make setup` installs what it needs)"
    return None


class FfcvSource(PooledSource):
    """Decodes the samples of `dataset` with FFCV on `workers` threads.

    Raises UsageError if FFCV cannot be used.
    """

    step = 8  # images per call, to amortise the cost of calling compiled code from Python

    def __init__(self, dataset: Dataset, *, workers: int):
        if reason := why_not():
            raise UsageError(f"FFCV cannot be used: {reason}; `native` reads the same files without it")
        super().__init__(dataset, workers=workers)
        with threads_kept():
            from .ffcv_decoder import compiled_decoder

            self._decode = compiled_decoder(dataset.shards[0])

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        """A pool that is kept for later epochs: FFCV creates a decoder per thread and never frees it."""
        kept = idle_pools[self._workers]
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
def _plain_dictionaries() -> Iterator[None]:
    """Gives FFCV a dict in place of numba's typed dictionary while it is imported.

    It keeps two whole numbers there, which its code reads as Python does, and numba compiles the typed dictionary for
    them in every process: three to five seconds of an import that takes 0.1 without.
    """
    import numba.typed

    typed = numba.typed.Dict
    numba.typed.Dict = dict
    try:
        yield
    finally:
        numba.typed.Dict = typed


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restores the number of threads of torch and numba, which FFCV changes on import and with every Loader."""
    import numba

    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)
