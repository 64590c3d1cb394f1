"""Stopping between two steps: Ctrl-C and SIGTERM are remembered, not obeyed in the middle of an update."""

import signal
from types import FrameType
from typing import Any


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; a second one acts as usual."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        try:
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._remember)
        except ValueError:
            pass  # not the main thread: signals stay as they are
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        self.__exit__()
