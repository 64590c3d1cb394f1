"""Batches to a device while the previous ones are being used.

The decoder writes a batch into a slot of page-locked memory. A thread sends it, with what belongs to each sample behind
the pixels, in one copy on a stream of its own; the slot is free again once an event has said that the copy is done. A
second event says that the consumer is done with a batch, and no more than a few are on the device at a time.

The ring knows nothing of CUDA: `CudaLink` does, and tests have links of their own, slow and treacherous.

Shape suffixes: B images, N bytes, 2 = (height, width).
"""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from .background import Background
from .ragged import RaggedBatch
from .readers.base import AHEAD

SLOTS = AHEAD + 2  # as many as the sources hold at once, and one to be filled while another is sent
ON_DEVICE = 2  # batches on the device that the consumer has not taken yet
_IN_USE = ON_DEVICE + 2  # batches after which the work on one has to be over
_TAIL = 8 + 8 + 8 + 2 * 4  # bytes a sample behind the pixels: offset, label, id, size


class Event(Protocol):
    """Something that a device will have done."""

    def synchronize(self) -> Any:
        """Returns once it has."""
        ...


class Link(Protocol):
    """What the ring needs of a device."""

    def host(self, count: int) -> Tensor:
        """Page-locked memory, uint8 [count]; called by any thread."""
        ...

    def wait(self, event: Event) -> None:
        """Returns once `event` has passed; called by any thread."""
        ...

    def enter(self) -> AbstractContextManager[Any]:
        """For the thread that sends: where its work on the device goes."""
        ...

    def send(self, host: Tensor) -> tuple[Tensor, Event]:
        """Begins to copy: memory on the device, and the event after which it holds `host`."""
        ...

    def receive(self, memory: list[Tensor], arrived: Event) -> None:
        """Has what the consumer does from now on wait for `arrived`; its host does not wait."""
        ...

    def mark(self) -> Event:
        """An event that passes when all that the consumer has begun until now is done."""
        ...


class CudaLink:
    """A CUDA device, a stream for copies, and whichever stream is current where the consumer asks for a batch.

    The device is made current for every call: a new thread's is the first one, and using CUDA would open a context
    there, some hundred megabytes for each process.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)

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
        arrived = torch.cuda.Event(blocking=True)  # a host that waits for it sleeps instead of spinning
        arrived.record(self._stream)
        return sent, arrived

    def receive(self, memory: list[Tensor], arrived: Event) -> None:
        """See Link."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(arrived)  # type: ignore[arg-type]
        for tensor in memory:
            # The allocator gives the memory to the copy stream again; it must first wait for the consumer's.
            tensor.record_stream(current)

    def mark(self) -> Event:
        """See Link."""
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(self._device))
        return done


class RingClosed(RuntimeError):
    """Raised to a decoder that waits for a slot when the consumer has left."""


class _Slot:
    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.sent: Event | None = None


class Ring:
    """`slots` buffers of page-locked memory that are filled and sent in turn; a readers.base.Buffers.

    batch_size: samples of a batch at most. Each buffer grows to the largest batch that it has held.
    """

    def __init__(self, link: Link, *, batch_size: int, slots: int = SLOTS):
        self._link, self._tail = link, batch_size * _TAIL
        self._free = deque(_Slot() for _ in range(slots))
        self._filled: dict[int, _Slot] = {}  # by address
        self._changed = threading.Condition()
        self._closed = False

    def empty(self, count: int) -> Tensor:
        """A slot's memory, uint8 [count]; waits for a free slot, and for its last copy to be done."""
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
        """The memory of the same slot for a batch of another size; what it held is lost."""
        return self._memory(self._filled.pop(old.data_ptr()), count)

    def _memory(self, slot: _Slot, count: int) -> Tensor:
        if slot.memory is None or len(slot.memory) < count + self._tail:
            slot.memory = None  # let go of before its successor is asked for
            slot.memory = self._link.host(count + count // 8 + self._tail)
        self._filled[slot.memory.data_ptr()] = slot
        return slot.memory[:count]

    def send(self, batch: RaggedBatch) -> tuple[RaggedBatch, list[Tensor], Event]:
        """Begins to copy a batch whose pixels are in a slot; see Sender."""
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
        """Lets waiting decoders go, and returns when no copy reads from a slot any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            free = list(self._free)
        for slot in free:
            if slot.sent is not None:
                self._link.wait(slot.sent)


def pack_rest(memory: Tensor, start: int, batch: RaggedBatch) -> int:
    """Writes all tensors of a batch but the pixels into `memory` from byte `start` on; returns where they end."""
    for tensor in batch[1:]:
        memory[start : start + tensor.nbytes].copy_(tensor.reshape(-1).view(torch.uint8))
        start += tensor.nbytes
    return start


def unpack_rest(pixels: Tensor, memory: Tensor, start: int, like: RaggedBatch) -> RaggedBatch:
    """`pixels` with the other tensors, of the types and shapes of `like`, as `pack_rest` wrote them."""
    rest = []
    for tensor in like[1:]:
        rest.append(memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += tensor.nbytes
    return RaggedBatch(pixels, *rest)


class Sender(Protocol):
    """Memory of batches that can be sent: a Ring, or one for pixels that are on the device already."""

    def send(self, batch: RaggedBatch) -> tuple[RaggedBatch, list[Tensor], Event]:
        """The batch on the device, its memory there, and when it is there."""
        ...

    def close(self) -> None:
        """Lets go of whoever waits for memory; returns when no copy is under way."""
        ...


def to_device(batches: Generator[RaggedBatch], link: Link, ring: Sender) -> Generator[RaggedBatch]:
    """The batches on the device of `link`, sent ahead by a thread of their own.

    batches: in the memory of `ring`, made by that thread. What is returned belongs to the consumer. No more
    batches are begun than ON_DEVICE beyond what it has taken, nor while work on the fourth before is still to be done.
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
        ring.close()  # first: the thread may be waiting for a decoder that waits for a slot
        sent.close()
        sending.close()


def _send(
    batches: Generator[RaggedBatch], link: Link, ring: Sender, done: deque[Event]
) -> Generator[tuple[RaggedBatch, list[Tensor], Event]]:
    try:
        with link.enter():
            for k, batch in enumerate(batches):
                if k >= _IN_USE:
                    # The queue holds ON_DEVICE batches, so the consumer has come back from batch k - _IN_USE by now.
                    link.wait(done.popleft())
                yield ring.send(batch)
                del batch
    finally:
        ring.close()
        batches.close()
