"""The ordered map over threads: order, bound on the look-ahead, exceptions, and no thread left after it is closed."""

import threading
import time

import pytest

from fastaugself.data.parallel import ordered_map


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ordered-map")] == []


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 5), (3, 1), (4, 7), (3, 100)])
def test_results_come_in_the_order_of_the_items(workers, ahead):
    def slow_at_first(i):
        time.sleep(0.01 if i % 4 == 0 else 0)  # later items finish earlier
        return i * i

    assert list(ordered_map(slow_at_first, range(23), workers=workers, ahead=ahead)) == [i * i for i in range(23)]
    assert list(ordered_map(slow_at_first, [], workers=workers, ahead=ahead)) == []


def test_items_run_on_several_threads_at_once():
    together = threading.Barrier(3, timeout=60)  # breaks unless three calls wait at the same time
    assert len(list(ordered_map(lambda _: together.wait(), range(6), workers=3, ahead=3))) == 6


@pytest.mark.parametrize("ahead", [1, 2, 6])
def test_at_most_ahead_items_are_taken_and_not_yielded(ahead):
    taken = 0

    def items():
        nonlocal taken
        for i in range(40):
            taken += 1
            yield i

    results = ordered_map(lambda i: i, items(), workers=2, ahead=ahead)
    assert taken == 0  # nothing starts before the first result is asked for
    for yielded, result in enumerate(results):
        assert result == yielded
        assert taken - yielded <= ahead
    assert taken == 40


def test_an_exception_of_the_function_comes_in_its_place():
    def fail_at_3(i):
        if i == 3:
            raise ValueError("the fourth")
        return i

    results = ordered_map(fail_at_3, range(100), workers=3, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(results)


def test_an_exception_of_the_items_reaches_the_consumer():
    def items():
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(ordered_map(lambda i: i, items(), workers=2, ahead=4))


def test_closing_early_cancels_what_has_not_started_waits_for_the_rest_and_closes_the_items():
    started, finished, closed = [], [], []
    go = threading.Event()

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    def work(i):
        started.append(i)
        if i > 0:
            go.wait(60)
            time.sleep(0.02)
        finished.append(i)
        return i

    results = ordered_map(work, items(), workers=2, ahead=20)
    assert next(results) == 0
    threading.Timer(0.1, go.set).start()
    results.close()
    assert sorted(started) == sorted(finished)
    assert len(started) <= 1 + 2 + 2  # the first item, one running on each thread, at most one more taken by each
    assert closed == [True]
    assert list(results) == []
