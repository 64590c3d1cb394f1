"""A bound on how far the host runs ahead of the device.

Without a host sync in a step only the launch queue would bound it, which a step replayed as a few CUDA graphs hardly
fills: the host would be many steps ahead, with the memory of their batches, and a stop or a log line would wait for
all of them.
"""

from collections import deque
from typing import Any, Protocol

import torch

AHEAD = 3  # steps that are enqueued on the device, and not finished, when the host goes on to the next


class Mark(Protocol):
    """A point in the work of a device, like torch.cuda.Event."""

    def synchronize(self) -> Any:
        """Blocks until the device has reached it."""
        ...


class RunAhead:
    """Lets the host run at most `ahead` steps ahead of the device."""

    def __init__(self, device: torch.device, ahead: int = AHEAD) -> None:
        self._device, self._ahead = device, ahead
        self._marks: deque[Mark] = deque()

    def step_done(self) -> None:
        """Call when a step is enqueued; waits for the step `ahead` steps before it. Does nothing on a CPU."""
        mark = self._mark()
        if mark is None:
            return
        self._marks.append(mark)
        if len(self._marks) > self._ahead:
            self._marks.popleft().synchronize()

    def _mark(self) -> Mark | None:
        """A mark after all work that is enqueued so far."""
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event(blocking=True)  # a waiting host thread sleeps and leaves its core to the decoders
        event.record(torch.cuda.current_stream(self._device))
        return event
