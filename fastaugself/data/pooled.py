"""Decoding on a pool of threads that take turns, so that none waits for the others before the next batch."""

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from .background import PATIENCE, log_waiting
from .dataset import Dataset
from .source import AHEAD, Buffers, Packed, allocate


class PooledSource(ABC):
    """Decodes the samples of `dataset` with `workers` threads, `step` images at a turn."""

    step = 1

    def __init__(self, dataset: Dataset, *, workers: int):
        self._dataset, self._workers = dataset, workers

    @abstractmethod
    def _decoder(self, packed: Packed) -> Callable[[int, int], Sequence[int]]:
        """decode(first, last) fills these images of `packed` and returns the positions of those that it could not.

        It is called from several threads at once, and should let go of Python's lock.
        """

    def batches(self, ids: Iterator[NDArray[np.int64]], buffers: Buffers) -> Generator[Packed]:
        """See source.Source."""
        ahead: deque[tuple[Packed, list[Future[None]]]] = deque()
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
        """The pool of one epoch, at whose end nothing runs in it."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="decode") as pool:
            yield pool

    def _next(self, ahead: deque[tuple[Packed, list[Future[None]]]]) -> Packed:
        packed = self._completed(*ahead[0])
        ahead.popleft()
        return packed

    def _submit(
        self, pool: ThreadPoolExecutor, ids_B: NDArray[np.int64], buffers: Buffers
    ) -> tuple[Packed, list[Future[None]]]:
        packed = Packed(*allocate(self._dataset.sizes_N2[ids_B], buffers), ids_B, [])
        decode, count = self._decoder(packed), len(ids_B)
        step = max(1, min(self.step, count // (2 * self._workers)))
        turns = itertools.count()  # shared by the threads of a batch, so that none is left with the largest photos

        def work() -> None:
            while (first := next(turns) * step) < count:
                packed.failed.extend(decode(first, min(first + step, count)))

        return packed, [pool.submit(work) for _ in range(min(self._workers, count))]

    def _completed(self, packed: Packed, futures: list[Future[None]]) -> Packed:
        for future in futures:
            while True:
                try:
                    future.result(PATIENCE)
                    break
                except FutureTimeoutError:
                    if future.done():
                        raise
                    log_waiting(f"a batch of {self._dataset.name}")
        packed.failed.sort()
        return packed
