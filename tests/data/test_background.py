"""Prefetching in a background thread: order, depth, exceptions, and the end of the thread."""

import itertools
import threading
import time

import pytest
from left_behind import working

from fastaugself.data.background import Background


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert working() == []


def test_background_hands_on_items_in_order_and_the_exception_after_them():
    def items():
        yield from range(5)
        raise ValueError("at the sixth")

    seen = []
    with pytest.raises(ValueError, match="at the sixth"):
        for item in Background(items(), depth=2, name="to-device"):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_background_works_only_depth_items_ahead_and_closes_its_items():
    made, closed = [], threading.Event()

    def items():
        try:
            for i in itertools.count():
                made.append(i)
                yield i
        finally:
            closed.set()

    batches = iter(Background(items(), depth=3, name="to-device"))
    assert next(batches) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1  # with the consumer, in the queue, in the thread
    batches.close()
    assert closed.is_set()
    assert working() == []
