"""Stopping on a signal: between two steps, and on all ranks after the same step."""

import signal
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist


class Stopped(KeyboardInterrupt):
    """A signal stopped the run, after a checkpoint was saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class StopRequest:
    """Context manager in which the first of SIGNALS sets `requested`; a second one acts as usual.

    Slurm can send SIGUSR1 some time before the end of a job (`--signal`). SIGHUP says that the terminal was closed or
    its connection lost. Where it is ignored (nohup), it stays ignored; a second one changes nothing, because the
    terminal, the shell and torchrun may each send one.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        try:
            for number in self.SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._remember)
        except ValueError:
            pass  # not the main thread: signal handlers are left unchanged
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(*self._before)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            signal.signal(number, self._before.pop(number))

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = self.requested or number
        self._restore(*self._before.keys() - {signal.SIGHUP})


class StopConsensus:
    """Agree on a stop signal: all ranks stop at the same step even if only one received it.

    The all-reduce overlaps with the step, so `reached` returns the result of the previous step. size: number of
    processes.
    """

    def __init__(self, size: int) -> None:
        self._group = dist.new_group(backend="gloo") if size > 1 else None
        self._asked = torch.zeros(1, dtype=torch.int32)
        self._work: Any = None

    def reached(self, requested: int | None) -> int | None:
        """The number of a signal that any rank received, or None. Every rank must call this once per step."""
        if self._group is None:
            return requested
        self.close()
        answer = int(self._asked.item())
        self._asked = torch.tensor([requested or 0], dtype=torch.int32)
        self._work = dist.all_reduce(self._asked, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return answer or None

    def close(self) -> None:
        """Waits for the last all-reduce."""
        if self._work is not None:
            self._work.wait()
            self._work = None
