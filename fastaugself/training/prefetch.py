"""Prefetching on a side stream: the next batch is augmented while the current one trains."""

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
        """Context in which work goes to this stream."""

    def hand_over(self, tensors: list[Tensor]) -> None:
        """The consumer's stream waits for this one, and keeps the memory of `tensors` until its work is done."""


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
    """Prefetch: run `make(item)` on a side stream before the consumer gets its result, without host sync.

    The host runs ahead of the device: when it asks for the next item, the device still works on the last one, and the
    work of `make` overlaps with it. stream: None runs `make` in the consumer's own stream, as on a CPU.
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
