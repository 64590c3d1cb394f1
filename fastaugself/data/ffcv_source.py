"""The reader on FFCV: its index, its memory map, its compiler and its JPEG decoder, with each photo decoded once.

FFCV compiles our decoder into a function of a batch of sample ids; the loop that calls it is ours. FFCV's own loop
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
from .beton import Beton
from .source import Packed, allocate

AHEAD = 3  # batches


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
    """Decodes the samples of `beton` with FFCV on `workers` threads; `pin` puts the batches into page-locked memory.

    Raises UsageError where FFCV cannot be used.
    """

    def __init__(self, beton: Beton, *, workers: int, pin: bool = False):
        if reason := why_not():
            raise UsageError(f"FFCV cannot be used: {reason}; `native` reads the same file without it")
        import numba

        self._beton, self._pin = beton, pin
        self._workers = min(workers, numba.config.NUMBA_NUM_THREADS)  # numba refuses more than it has
        with _threads_kept():
            from .ffcv_decoder import make_loader

            self._loader = make_loader(beton, self._workers)
        self._storage = self._loader.memory_manager.schedule_epoch(())
        self._storage.__enter__()
        beton.check_unchanged()  # FFCV has opened the path anew

    def batches(self, ids: Iterator[NDArray[np.int64]]) -> Generator[Packed]:
        """See source.Source."""
        yield from Background(self._decode_all(ids), depth=AHEAD, name="ffcv")

    def _decode_all(self, ids: Iterator[NDArray[np.int64]]) -> Generator[Packed]:
        import numba

        numba.set_num_threads(self._workers)  # holds for this thread only
        for ids_B in ids:
            yield self._decode(ids_B)

    def _decode(self, ids_B: NDArray[np.int64]) -> Packed:
        self._beton.check_unchanged()  # reading a memory map beyond the end of its file kills the process
        pixels, offsets_B = allocate(self._beton.sizes_N2[ids_B], pin=self._pin)
        intact_B = np.zeros(len(ids_B), np.bool_)
        (stage, (node,)), *_ = self._loader.code[0]
        memory = {f"memory_{node}": (pixels.numpy(), offsets_B, intact_B), f"shared_memory_{node}": None}
        stage(batch_indices=ids_B, metadata=self._loader.reader.metadata, storage_state=self._storage.state, **memory)
        return Packed(pixels, offsets_B, ids_B, np.flatnonzero(~intact_B).tolist())

    def close(self) -> None:
        """The memory map goes with the last reference."""


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
