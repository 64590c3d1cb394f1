"""Prefetching in a background thread that always ends with its consumer."""

import atexit
import contextlib
import logging
import queue
import threading
import weakref
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
_END = object()
PATIENCE = 60.0  # seconds without an item before a warning is logged: a dead network disk looks just like this


def log_waiting(about: str) -> None:
    """Logs a warning that `about` has not arrived; called after every PATIENCE seconds of waiting."""
    log.warning("still waiting for %s after %.0f s: is the disk slow or gone?", about, PATIENCE)


class _Raised:
    def __init__(self, error: BaseException):
        self.error = error


class Background(Generic[T]):
    """Iterates over `items` in a background thread, with up to `depth` finished items queued; iterate over it once.

    An exception in the thread is raised to the consumer at the item where it happened. `close()` returns when the
    thread has ended. If `items` is a generator, it is closed in that thread.
    """

    def __init__(self, items: Iterable[T], *, depth: int, name: str, about: str = ""):
        """name: name of the thread. about: what the items are, for the warning about a long wait (default: `name`)."""
        self._items, self._queue, self._about = items, queue.Queue[object](depth), about or name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _running.add(self)

    def _run(self) -> None:
        last: object = _END
        try:
            try:
                for item in self._items:
                    if not self._put(item):
                        return
                    del item  # otherwise this thread would keep the batch in memory until the next one is ready
            finally:
                if isinstance(self._items, Generator):
                    self._items.close()
        except BaseException as error:
            last = _Raised(error)
        self._put(last)

    def _put(self, item: object) -> bool:
        """False if the consumer has called `close`, which empties the queue so that `put` cannot block forever."""
        if self._stop.is_set():
            return False
        self._queue.put(item)
        return not self._stop.is_set()

    def __iter__(self) -> Generator[T]:
        try:
            while True:
                item = self._next()
                if item is _END:
                    return
                if isinstance(item, _Raised):
                    raise item.error
                yield item  # type: ignore[misc]
                del item
        finally:
            self.close()

    def _next(self) -> object:
        while True:
            try:
                return self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                log_waiting(self._about)

    def close(self) -> None:
        """Stops the thread after its current item, and waits for it to end."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            self._thread.join(0.002)


_running: weakref.WeakSet[Background] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Ends all threads at exit: one inside FFCV's compiled code at interpreter shutdown would abort the process."""
    for background in list(_running):
        background.close()
