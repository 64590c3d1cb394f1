"""The reader on FFCV: its pipelines, its compiler, its threads and its JPEG decoder, with each photo decoded once.

FFCV compiles our decoder into a function of a batch of samples; the loop that calls it is ours. FFCV's own loop
(EpochIterator) waits for ever when its thread fails, leaves the thread behind when the consumer stops early, and hands
out buffers that it overwrites with the next batch but one.

Shape suffixes: B images of a batch, N samples or bytes.
"""

import importlib
import importlib.util
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from .background import Background
from .beton import IMAGE
from .dataset import Dataset
from .source import AHEAD, Buffers, Packed, allocate


def why_not() -> str | None:
    """What keeps FFCV from being used in this process, None if nothing does."""
    if importlib.util.find_spec("ffcv") is None:
        return "ffcv is not installed (`make setup` builds it)"
    try:
        with _threads_kept():
            from . import ffcv_decoder  # noqa: F401
    except (ImportError, OSError) as error:
        return f"ffcv cannot be imported ({error}; `make setup` installs what it needs)"
    if not _has_safe_threads():
        return (
            "numba has only its `workqueue` threads here, which end the process when two threads use them at once "
            "(installing libgomp1 or tbb gives it others)"
        )
    return None


class FfcvSource:
    """Decodes the samples of `dataset` with FFCV on `workers` threads.

    Raises UsageError where FFCV cannot be used.
    """

    def __init__(self, dataset: Dataset, *, workers: int):
        if reason := why_not():
            raise UsageError(f"FFCV cannot be used: {reason}; `native` reads the same files without it")
        import numba

        self._dataset = dataset
        self._workers = min(workers, numba.config.NUMBA_NUM_THREADS)  # numba refuses more than it has
        with _threads_kept():
            from .ffcv_decoder import compiled_decoder

            self._decoder = compiled_decoder(dataset.shards[0], self._workers)

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Packed]:
        """See source.Source."""
        yield from Background(self._decode_all(ids, buffers), depth=AHEAD, name="ffcv", about=self._about)

    @property
    def _about(self) -> str:
        return f"a batch of {self._dataset.name}"

    def _decode_all(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Packed]:
        import numba

        numba.set_num_threads(self._workers)  # holds for this thread only
        for ids_B in ids:
            yield self._decode(ids_B, buffers)

    def _decode(self, ids_B: NDArray[np.int64], buffers: Buffers) -> Packed:
        sizes_B2 = self._dataset.sizes_N2[ids_B]
        pixels, offsets_B = allocate(sizes_B2, buffers)
        intact_B = np.zeros(len(ids_B), np.bool_)
        records_B = np.zeros(len(ids_B), IMAGE)
        records_B["mode"], records_B["data_ptr"] = self._dataset.modes_N[ids_B], np.arange(len(ids_B))
        records_B["height"], records_B["width"] = sizes_B2[:, 0], sizes_B2[:, 1]
        fds_B, pointers_B, bytes_B = self._dataset.where(ids_B)
        self._decoder(
            records_B,
            fds_B.astype(np.uint32),
            pointers_B.astype(np.uint64),
            bytes_B.astype(np.uint64),
            pixels.numpy(),
            offsets_B,
            intact_B,
        )
        return Packed(pixels, offsets_B, ids_B, np.flatnonzero(~intact_B).tolist())


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


def _has_safe_threads() -> bool:
    """Whether numba runs parallel loops on TBB or OpenMP, which bear being used from two threads at once."""
    import numba

    try:
        return numba.threading_layer() != "workqueue"  # known once the first parallel loop has run
    except ValueError:
        wanted = numba.config.THREADING_LAYER
    if wanted in ("tbb", "omp", "workqueue"):
        return bool(wanted != "workqueue")
    for layer in ("tbbpool", "omppool"):
        try:
            importlib.import_module(f"numba.np.ufunc.{layer}")
            return True
        except ImportError:
            continue
    return False
