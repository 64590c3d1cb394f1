"""Decoding in a thread pool; threads that finish a batch continue with the next one without waiting for the others."""

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..background import PATIENCE, log_waiting
from ..dataset import Dataset
from ..ragged import RaggedBatch
from .base import AHEAD, Buffers, Decoded, allocate, ragged_batch


class PooledSource(ABC):
    """Base class of readers that decode with `workers` threads; a thread takes `step` images at a time."""

    step = 1

    def __init__(self, dataset: Dataset, *, workers: int):
        self._dataset, self._workers = dataset, workers

    @abstractmethod
    def _decoder(self, batch: RaggedBatch) -> Callable[[int, int], Sequence[int]]:
        """Returns decode(first, last): decodes these images of `batch`, and returns the positions of failed ones.

        The function is called from several threads at once, and should release the GIL.
        """

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Decoded]:
        """See base.Source."""
        ahead: deque[tuple[Decoded, list[Future[None]]]] = deque()
        with self._threads() as pool:
            try:
                for ids_B in ids:
                    ahead.append(self._submit(pool, ids_B, buffers))
                    if len(ahead) > AHEAD:
                        yield self._next(ahead)
                while ahead:
                    yield self._next(ahead)
            finally:
                futures = [future for _, some in ahead for future in some]
                wait([future for future in futures if not future.cancel()])

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        """The thread pool of one epoch; it is idle when the context exits."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
            yield pool

    def _next(self, ahead: deque[tuple[Decoded, list[Future[None]]]]) -> Decoded:
        decoded = self._completed(*ahead[0])
        ahead.popleft()
        return decoded

    def _submit(
        self, pool: ThreadPoolExecutor, ids_B: NDArray[np.int64], buffers: Buffers
    ) -> tuple[Decoded, list[Future[None]]]:
        pixels, offsets_B = allocate(self._dataset.sizes_N2[ids_B], buffers)
        decoded = Decoded(ragged_batch(self._dataset, ids_B, pixels, offsets_B), [])
        decode, count = self._decoder(decoded.batch), len(ids_B)
        step = max(1, min(self.step, count // (2 * self._workers)))
        chunks = itertools.count()  # shared by the threads of a batch, for load balancing

        def work() -> None:
            while (first := next(chunks) * step) < count:
                decoded.failed.extend(decode(first, min(first + step, count)))

        return decoded, [pool.submit(work) for _ in range(min(self._workers, count))]

    def _completed(self, decoded: Decoded, futures: list[Future[None]]) -> Decoded:
        for future in futures:
            while True:
                try:
                    future.result(PATIENCE)
                    break
                except FutureTimeoutError:
                    if future.done():
                        raise
                    log_waiting(f"a batch of {self._dataset.name}")
        decoded.failed.sort()
        return decoded
