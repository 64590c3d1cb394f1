"""Asynchronous host-to-device copies: batches are sent while earlier ones are being used.

The decoder writes a batch into a slot of page-locked memory. A thread copies it to the device on a separate stream: one
copy for the pixels and the per-sample tensors behind them. An event marks the end of the copy, after which the slot is
free again. A second event marks that the consumer has finished with a batch; it limits the batches on the device.

The ring does not depend on CUDA. `CudaLink` does; the tests use links to simulated devices.

Shape suffixes: B batch, N bytes, 2 = (height, width).
"""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from .background import Background
from .ragged import RaggedBatch
from .readers.base import AHEAD

SLOTS = AHEAD + 2  # those that a reader holds at once, plus one that is being sent
ON_DEVICE = 2  # batches on the device ahead of the consumer
_IN_USE = ON_DEVICE + 2  # batch k is sent only when the work on batch k - _IN_USE has finished
_TAIL = 8 + 8 + 8 + 2 * 4  # bytes per sample behind the pixels: offset, label, id, size


class Event(Protocol):
    """A point in the work of a device, like torch.cuda.Event."""

    def synchronize(self) -> Any:
        """Blocks until the device has reached the event."""
        ...


class Link(Protocol):
    """The device operations that the ring needs."""

    def host(self, count: int) -> Tensor:
        """Allocates page-locked host memory, uint8 [count]; called from any thread."""
        ...

    def wait(self, event: Event) -> None:
        """Blocks until the device has reached `event`; called from any thread."""
        ...

    def enter(self) -> AbstractContextManager[Any]:
        """Context of the sending thread: makes its device and copy stream current."""
        ...

    def send(self, host: Tensor) -> tuple[Tensor, Event]:
        """Starts a copy of `host`; returns the device memory, and the event of the finished copy."""
        ...

    def receive(self, memory: list[Tensor], arrived: Event) -> None:
        """Makes later work on the consumer's stream wait for `arrived`, without blocking the host."""
        ...

    def mark(self) -> Event:
        """An event that marks the end of all work the consumer has enqueued so far."""
        ...


@lru_cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies to a device, one for the life of the process.

    The allocator keeps freed memory by stream: with a new stream in every epoch and check, each would strand its own.
    """
    return torch.cuda.Stream(device)


class CudaLink:
    """Link to a CUDA device: copies run on a separate stream, the consumer's work on its current stream.

    Every call makes the device current. In a new thread the current device is cuda:0, and using CUDA there would create
    a context on that device, which takes some hundred megabytes per process.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = copy_stream(device)

    def host(self, count: int) -> Tensor:
        """See Link."""
        with torch.cuda.device(self._device):
            return torch.empty(count, dtype=torch.uint8, pin_memory=True)

    def wait(self, event: Event) -> None:
        """See Link."""
        with torch.cuda.device(self._device):
            event.synchronize()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """See Link."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield

    def send(self, host: Tensor) -> tuple[Tensor, Event]:
        """See Link."""
        sent = torch.empty(len(host), dtype=torch.uint8, device=self._device)
        sent.copy_(host, non_blocking=True)
        arrived = torch.cuda.Event(blocking=True)  # a waiting host thread sleeps instead of spinning
        arrived.record(self._stream)
        return sent, arrived

    def receive(self, memory: list[Tensor], arrived: Event) -> None:
        """See Link."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(arrived)  # type: ignore[arg-type]
        for tensor in memory:
            # The allocator will reuse the memory on the copy stream; it must first wait for the consumer's stream.
            tensor.record_stream(current)

    def mark(self) -> Event:
        """See Link."""
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(self._device))
        return done


class RingClosed(RuntimeError):
    """Raised in a decoder that waits for a slot when the ring is closed."""


class _Slot:
    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.sent: Event | None = None


class Ring:
    """A ring of `slots` page-locked buffers that are filled and sent in turn; implements readers.base.Buffers.

    batch_size: maximum number of samples per batch. Each buffer grows to the size of the largest batch it has held.
    """

    def __init__(self, link: Link, *, batch_size: int, slots: int = SLOTS):
        self._link, self._tail = link, batch_size * _TAIL
        self._free = deque(_Slot() for _ in range(slots))
        self._filled: dict[int, _Slot] = {}  # by address of the memory
        self._changed = threading.Condition()
        self._closed = False

    def empty(self, count: int) -> Tensor:
        """The memory of a free slot, uint8 [count]; waits for a slot whose last copy has finished."""
        with self._changed:
            while not self._free and not self._closed:
                self._changed.wait()
            if self._closed:
                raise RingClosed("the ring is closed")
            slot = self._free.popleft()
        try:
            if slot.sent is not None:
                self._link.wait(slot.sent)
                slot.sent = None
            return self._memory(slot, count)
        except BaseException:
            with self._changed:
                self._free.append(slot)
            raise

    def exchange(self, old: Tensor, count: int) -> Tensor:
        """The memory of the same slot, resized to `count` bytes; its content is lost."""
        return self._memory(self._filled.pop(old.data_ptr()), count)

    def _memory(self, slot: _Slot, count: int) -> Tensor:
        if slot.memory is None or len(slot.memory) < count + self._tail:
            slot.memory = None  # freed before the larger buffer is allocated
            slot.memory = self._link.host(count + count // 8 + self._tail)
        self._filled[slot.memory.data_ptr()] = slot
        return slot.memory[:count]

    def send(self, batch: RaggedBatch) -> tuple[RaggedBatch, list[Tensor], Event]:
        """Starts the copy of a batch whose pixels are in a slot; see Sender."""
        slot = self._filled.pop(batch.pixels.data_ptr())
        memory, count = slot.memory, len(batch.pixels)
        assert memory is not None
        used = pack_rest(memory, count, batch)
        sent, slot.sent = self._link.send(memory[:used])
        arrived = slot.sent
        with self._changed:
            self._free.append(slot)
            self._changed.notify()
        return unpack_rest(sent[:count], sent, count, batch), [sent], arrived

    def close(self) -> None:
        """Raises RingClosed in waiting decoders; returns when no copy reads from a slot any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            free = list(self._free)
        for slot in free:
            if slot.sent is not None:
                self._link.wait(slot.sent)


def pack_rest(memory: Tensor, start: int, batch: RaggedBatch) -> int:
    """Writes all tensors of a batch except the pixels to `memory` at byte `start`; returns the end position."""
    for tensor in batch[1:]:
        memory[start : start + tensor.nbytes].copy_(tensor.reshape(-1).view(torch.uint8))
        start += tensor.nbytes
    return start


def unpack_rest(pixels: Tensor, memory: Tensor, start: int, like: RaggedBatch) -> RaggedBatch:
    """A batch of `pixels` and the tensors that `pack_rest` wrote, with the dtypes and shapes of `like`."""
    rest = []
    for tensor in like[1:]:
        rest.append(memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += tensor.nbytes
    return RaggedBatch(pixels, *rest)


class Sender(Protocol):
    """Memory of batches that can be sent: a Ring, or DeviceMemory for pixels that are already on the device."""

    def send(self, batch: RaggedBatch) -> tuple[RaggedBatch, list[Tensor], Event]:
        """Starts the copy; returns the batch on the device, its device memory, and the event of the finished copy."""
        ...

    def close(self) -> None:
        """Ends all waits for memory; returns when no copy is in progress."""
        ...


def to_device(batches: Generator[RaggedBatch], link: Link, ring: Sender) -> Generator[RaggedBatch]:
    """Yields the batches on the device of `link`, sent ahead by a background thread.

    batches: batches in the memory of `ring`; iterated in the background thread. The consumer owns the yielded batches.
    At most ON_DEVICE batches are sent ahead of the consumer, and batch k only after the device has finished the work on
    batch k - 4.
    """
    done: deque[Event] = deque()
    sending = Background(_send(batches, link, ring, done), depth=ON_DEVICE, name="to-device")
    sent = iter(sending)
    try:
        for batch, memory, arrived in sent:
            link.receive(memory, arrived)
            yield batch
            del batch, memory
            done.append(link.mark())
    finally:
        ring.close()  # must come first: the thread may wait for a decoder that waits for a slot
        sent.close()
        sending.close()


def _send(
    batches: Generator[RaggedBatch], link: Link, ring: Sender, done: deque[Event]
) -> Generator[tuple[RaggedBatch, list[Tensor], Event]]:
    try:
        with link.enter():
            for k, batch in enumerate(batches):
                if k >= _IN_USE:
                    # The queue holds ON_DEVICE batches, so the consumer has returned from batch k - _IN_USE by now.
                    link.wait(done.popleft())
                yield ring.send(batch)
                del batch
    finally:
        ring.close()
        batches.close()
