"""Prefetching on a side stream: the next batch is augmented during the current training step."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

A = TypeVar("A")
B = TypeVar("B")


class Stream(Protocol):
    """A side stream of the device."""

    def enter(self) -> AbstractContextManager[Any]:
        """Context manager in which work is enqueued on this stream."""

    def hand_over(self, tensors: list[Tensor]) -> None:
        """Makes the current stream wait for this one, and keeps the memory of `tensors` until it has used them."""


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


def prefetch(items: Generator[A], make: Callable[[A], B], stream: Stream | None) -> Generator[B]:
    """Yields `make(item)` for each item, computed on a side stream without host sync.

    The host runs ahead of the device: when the consumer requests the next item, the device still works on the previous
    one, and `make` overlaps with it. stream: None runs `make` on the current stream, as on a CPU.
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
                with stream.enter():  # next() too, so that only this stream waits for the copy to the device
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
