"""Work on the device beside the step: the next batch's augmentation while the current one trains."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

A = TypeVar("A")
B = TypeVar("B")


class Stream(Protocol):
    """A queue of work on the device, beside the queue that the consumer fills."""

    def enter(self) -> AbstractContextManager[Any]:
        """While entered, work goes to this queue."""

    def hand_over(self, tensors: list[Tensor]) -> None:
        """The consumer's later work waits for what was enqueued so far, and keeps the tensors' memory while it runs."""


class CudaStream:
    """A CUDA stream."""

    def __init__(self, device: torch.device) -> None:
        self._stream, self._device = torch.cuda.Stream(device), device

    def enter(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream)

    def hand_over(self, tensors: list[Tensor]) -> None:
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(self._stream.record_event())
        for tensor in tensors:
            tensor.record_stream(consumer)


def beside(items: Generator[A], make: Callable[[A], B], stream: Stream | None) -> Generator[B]:
    """`make` of every item, enqueued on `stream` before the consumer gets it; the host waits for neither.

    The host runs ahead of the device: when it asks for the next item, the device is still at the last, and what `make`
    enqueues then runs beside it. None: in the consumer's own queue, as on a CPU.
    """
    try:
        while True:
            if stream is None:
                try:
                    item = next(items)
                except StopIteration:
                    return
                made = make(item)
            else:
                with stream.enter():  # the item too: its copy to the device is waited for in this stream alone
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                    made = make(item)
                stream.hand_over(tensors_in(made))
            del item
            yield made
            del made
    finally:
        items.close()


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of nested tuples and lists."""
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors_in(part)] if isinstance(value, tuple | list) else []
