"""Batches to a CUDA device while the previous ones are being used: pinned buffer, copy stream, event."""

from collections.abc import Generator, Iterator
from contextlib import closing

import torch

from .background import Background
from .canvas import Canvas

AHEAD = 2  # batches on the device that the consumer has not taken yet


def to_cuda(canvases: Generator[Canvas], device: torch.device) -> Generator[Canvas]:
    """The same batches on `device`, copied by a thread and a stream of their own.

    canvases: with `pixels` in pinned memory. The consumer's current stream waits for each copy, its host does not. The
    batches belong to the consumer: PyTorch's allocator keeps their memory until the work that its stream was given on
    them is done.
    """
    with closing(iter(Background(_copy(canvases, device), depth=AHEAD, name="to-device"))) as copied:
        for canvas, arrived in copied:
            current = torch.cuda.current_stream(device)
            current.wait_event(arrived)
            for tensor in canvas:
                tensor.record_stream(current)
            yield canvas


def _copy(canvases: Generator[Canvas], device: torch.device) -> Iterator[tuple[Canvas, torch.cuda.Event]]:
    stream = torch.cuda.Stream(device)
    try:
        with torch.cuda.device(device):
            for canvas in canvases:
                pinned = Canvas(canvas.pixels, *(t.pin_memory() for t in canvas[1:]))
                with torch.cuda.stream(stream):
                    moved = pinned.to(device, non_blocking=True)
                arrived = torch.cuda.Event()
                arrived.record(stream)
                yield moved, arrived
                # The host buffers may go now: the pinned allocator has noted the copies and waits for them itself.
    finally:
        canvases.close()
