"""A pool of threads for kernels that release the GIL.

Numba's own parallel loops are not used: its default threading layer must not be entered from two threads at once,
and a process may run two loaders, or FFCV's, beside this.
"""

import itertools
import os
import queue
import threading
from collections.abc import Callable
from typing import Any


class Pool:
    """Threads that live as long as the process, started when first needed; survives a fork."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = 0
        self._lock = threading.Lock()

    def _work(self, jobs: "queue.SimpleQueue[Callable[[], None]]") -> None:
        while True:
            jobs.get()()

    def run(self, work: Callable[[int, int], Any], items: int, chunk: int, threads: int) -> None:
        """Calls work(first, last) until all items are done, on `threads` threads of which the caller is one.

        Each thread takes the next chunk when it is free. Returns when all have finished; raises what a call raised.
        """
        chunks = -(-items // chunk)
        threads = min(threads, chunks)
        counter = itertools.count()
        errors: list[BaseException] = []
        helpers = threading.Semaphore(0)

        def take() -> None:
            for n in counter:
                if n >= chunks or errors:
                    return
                try:
                    work(n * chunk, min(items, (n + 1) * chunk))
                except BaseException as error:
                    errors.append(error)

        def help_out() -> None:
            take()
            helpers.release()

        with self._lock:
            while self._started < threads - 1:
                self._started += 1
                name = f"fastaugself-{self._started}"
                threading.Thread(target=self._work, args=(self._jobs,), name=name, daemon=True).start()
        for _ in range(threads - 1):
            self._jobs.put(help_out)
        take()
        for _ in range(threads - 1):
            helpers.acquire()
        if errors:
            raise errors[0]
