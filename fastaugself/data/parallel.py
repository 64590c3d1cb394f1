"""A map over threads that keeps the order of its items and computes a bounded number of results ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int, ahead: int) -> Generator[R]:
    """Yields `function(item)` for every item, in the order of `items`, computed by `workers` threads.

    items: iterated lazily, in the consumer's thread; a generator is closed at the end. workers: number of threads, at
    least 1. ahead: maximum number of items that have been taken from `items` and whose results have not been yielded
    yet, at least 1; bounds the memory.

    An exception of `function` or of `items` is raised to the consumer in its place in the order. Closing the generator
    cancels the calls that have not started and waits for those that have: afterwards no thread is left.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ordered-map")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(items, Generator):
            items.close()
