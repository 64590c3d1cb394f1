"""A trace of some steps, and the memory that training takes."""

from pathlib import Path
from typing import Any

import torch

WARM_UP = 10  # steps before the trace, so that it excludes compilation and first allocations


class Profiler:
    """Writes `folder/trace.json` of `steps` steps, for chrome://tracing or Perfetto; 0 steps do nothing."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._profile: Any = None
        if not steps:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "trace.json"
        self._profile = torch.profiler.profile(
            schedule=torch.profiler.schedule(skip_first=WARM_UP, wait=0, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
        )
        self._profile.start()
        self._left = WARM_UP + 1 + steps

    def step_done(self) -> None:
        """Call after every step."""
        if self._profile is None:
            return
        self._profile.step()
        self._left -= 1
        if self._left == 0:
            self.close()

    def close(self) -> None:
        """Stops the profiler; writes a trace of the steps so far, if any."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, profile: Any) -> None:
        profile.export_chrome_trace(str(self._path))
