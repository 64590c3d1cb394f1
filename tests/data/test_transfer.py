"""The ring of page-locked slots, with a simulated device that copies late, so that races become visible."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from fastaugself.data import transfer
from fastaugself.data.ragged import RaggedBatch
from fastaugself.data.readers.base import allocate
from fastaugself.data.transfer import Ring, RingClosed, to_device


class SlowEvent:
    """An event of the simulated device: reached after the device has run `work`."""

    def __init__(self, work=lambda: None):
        self.work, self.passed = work, threading.Event()

    def synchronize(self):
        assert self.passed.wait(5), "the device never reaches this event"


class LateLink:
    """A simulated device: a thread runs all work in order, with a delay, so that a slot reused too early shows."""

    def __init__(self, delay=0.002):
        self.delay, self.queue, self.changed, self.stopped = delay, [], threading.Condition(), False
        self.hosts, self.alive, self.most = [], 0, 0
        self.thread = threading.Thread(target=self._run, name="device")
        self.thread.start()

    def _run(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.queue or self.stopped)
                if not self.queue:
                    return
                event = self.queue.pop(0)
            time.sleep(self.delay)
            event.work()
            event.passed.set()

    def _enqueue(self, event):
        with self.changed:
            self.queue.append(event)
            self.changed.notify()
        return event

    @contextmanager
    def enter(self):
        yield

    def wait(self, event):
        event.synchronize()

    def host(self, count):
        self.hosts.append(count)
        return torch.full((count,), 77, dtype=torch.uint8)

    def send(self, host):
        sent = torch.zeros_like(host)
        self.alive += 1
        self.most = max(self.most, self.alive)
        return sent, self._enqueue(SlowEvent(lambda: sent.copy_(host)))

    def receive(self, memory, arrived):
        arrived.synchronize()

    def mark(self):
        def work():
            self.alive -= 1

        return self._enqueue(SlowEvent(work))

    def stop(self):
        with self.changed:
            self.stopped = True
            self.changed.notify()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def link():
    late = LateLink()
    yield late
    late.stop()
    assert not [t.name for t in threading.enumerate() if t.name == "to-device"]


def decoded(ring, count, *, closed=None, sizes=None):
    """`count` batches of 3 images; every byte of batch k is k. Up to 3 batches are in the ring's memory at once."""
    held = []
    try:
        for k in range(count):
            sizes_B2 = np.array([[2 + k % 5, 3], [4, 5], [1, 1]], np.int32) if sizes is None else sizes[k]
            pixels, offsets_B = allocate(sizes_B2, ring)
            pixels.fill_(k % 251)
            ids_B = torch.arange(3) + 3 * k
            held.append(RaggedBatch(pixels, torch.from_numpy(offsets_B), torch.from_numpy(sizes_B2), -ids_B, ids_B))
            if len(held) > 2:
                yield held.pop(0)
        while held:
            yield held.pop(0)
    finally:
        if closed is not None:
            closed.set()


def check(batch, k):
    assert batch.ids_B.tolist() == [3 * k, 3 * k + 1, 3 * k + 2]
    assert batch.labels_B.tolist() == [-3 * k, -3 * k - 1, -3 * k - 2]
    assert batch.sizes_B2.tolist() == [[2 + k % 5, 3], [4, 5], [1, 1]]
    assert batch.sizes_B2.dtype == torch.int32
    assert [t.dtype for t in batch] == [torch.uint8, torch.int64, torch.int32, torch.int64, torch.int64]
    assert (batch.pixels == k % 251).all()


@pytest.mark.parametrize("slots", [3, 5])
def test_every_batch_arrives_intact_while_slots_are_reused(link, slots):
    ring = Ring(link, batch_size=3, slots=slots)
    kept = []
    for k, batch in enumerate(to_device(decoded(ring, 40), link, ring)):
        check(batch, k)
        kept.append(batch)
    assert len(kept) == 40
    for k, batch in enumerate(kept):  # the consumer owns them
        check(batch, k)
    assert len(link.hosts) <= 2 * slots, "page-locking is slow: a slot keeps its memory"


def test_without_waiting_for_the_copy_a_batch_would_be_overwritten(link, monkeypatch):
    """The simulated device is slow enough for the test above to detect this."""
    monkeypatch.setattr(SlowEvent, "synchronize", lambda event: None)
    ring = Ring(link, batch_size=3, slots=3)
    wrong = 0
    batches = list(to_device(decoded(ring, 40), link, ring))
    time.sleep(0.3)
    for k, batch in enumerate(batches):
        wrong += not bool((batch.pixels == k % 251).all())
    assert wrong > 0


def test_a_consumer_whose_device_is_behind_has_few_batches_on_it(link):
    link.delay = 0.01
    ring = Ring(link, batch_size=3)
    for batch in to_device(decoded(ring, 30), link, ring):
        del batch
    assert link.most <= transfer._IN_USE + 1


def test_slots_grow_to_the_largest_batch_and_no_further(link):
    sides = [5, 9, 4, 30, 12, 30, 29, 8] * 4
    sizes = [np.full((3, 2), side, np.int32) for side in sides]
    ring = Ring(link, batch_size=3, slots=3)
    seen = [len(batch.pixels) for batch in to_device(decoded(ring, len(sides), sizes=sizes), link, ring)]
    assert seen == [3 * (-(-side * side * 3 // 16) * 16) for side in sides]
    assert max(link.hosts) <= 1.125 * max(seen) + 3 * 32


def test_exchange_keeps_the_slot():
    link = LateLink()
    try:
        ring = Ring(link, batch_size=1, slots=1)
        small = ring.empty(16)
        large = ring.exchange(small, 4000)
        again = ring.exchange(large, 32)
        assert (len(large), len(again), again.data_ptr()) == (4000, 32, large.data_ptr())
    finally:
        link.stop()


@pytest.mark.parametrize("how", ["break", "exception", "close", "interrupt"])
def test_ends_close_the_decoder_and_the_thread(link, how):
    closed = threading.Event()
    ring = Ring(link, batch_size=3, slots=3)
    batches = to_device(decoded(ring, 1000, closed=closed), link, ring)
    if how == "break":
        for _ in batches:
            break
        batches.close()
    elif how == "close":
        next(batches)
        batches.close()
    else:
        error = ZeroDivisionError if how == "exception" else KeyboardInterrupt
        next(batches)
        with pytest.raises(error):
            batches.throw(error)
    assert closed.is_set()
    with pytest.raises(RingClosed):
        ring.empty(1)


def test_a_decoder_that_waits_for_a_slot_is_released(link):
    """A decoding thread may hold every slot and wait for another one when the consumer stops."""
    from fastaugself.data.background import Background

    def ahead(ring):
        yield from Background(decoded(ring, 1000), depth=3, name="to-device")

    for consumed in (0, 1, 5):
        ring = Ring(link, batch_size=3, slots=4)
        batches = to_device(ahead(ring), link, ring)
        for _ in range(consumed):
            next(batches)
        began = time.perf_counter()
        batches.close()
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize("where", ["decode", "host", "send"])
def test_an_error_anywhere_reaches_the_consumer(link, where, monkeypatch):
    def fail(*_):
        raise MemoryError("no more")

    def decode(ring):
        yield from decoded(ring, 5)
        fail()

    ring = Ring(link, batch_size=3, slots=3)
    if where != "decode":
        monkeypatch.setattr(link, where, fail)
    with pytest.raises(MemoryError, match="no more"):
        list(to_device(decode(ring), link, ring))


def test_a_device_has_one_copy_stream_for_the_life_of_the_process(monkeypatch):
    """The allocator keeps freed blocks by stream, so that a stream in every epoch would strand a batch's in each."""
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or len(made))
    transfer.copy_stream.cache_clear()
    try:
        for device in ("cuda:0", "cuda:1", "cuda:0", "cuda:0"):
            transfer.CudaLink(torch.device(device))
        assert made == [torch.device("cuda:0"), torch.device("cuda:1")]
    finally:
        transfer.copy_stream.cache_clear()
