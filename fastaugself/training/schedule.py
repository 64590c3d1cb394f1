"""The learning rate over a run, also over one that was made longer.

A run has one segment, from the start to `--epochs`, unless it was extended (`--extend`): then every extension adds one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ..config.optim import Optim
from ..errors import UsageError
from .optim import learning_rate

MIN_TAIL = 0.01  # of the peak: a cosine ends at 0, where training would change nothing


class Segment(NamedTuple):
    """A part of a run. end: in epochs from the start of the run. kind: start, restart or tail."""

    end: int
    kind: str


class Schedule:
    """The learning rate at every step. segments: in order, the last one ends with the run."""

    def __init__(self, optim: Optim, *, batch_size: int, steps_per_epoch: int, segments: Sequence[Segment]) -> None:
        self._optim, self._batch_size, self._steps_per_epoch = optim, batch_size, steps_per_epoch
        self.segments = tuple(segments)

    def __call__(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        number = next(
            (i for i, part in enumerate(self.segments) if step < part.end * self._steps_per_epoch),
            len(self.segments) - 1,
        )
        return self._rate(number, step)

    def _rate(self, number: int, step: int) -> float:
        part = self.segments[number]
        start = self.segments[number - 1].end if number else 0
        if part.kind == "tail":
            peak = self._optim.lr * self._batch_size / 256
            return max(self._rate(number - 1, start * self._steps_per_epoch - 1), MIN_TAIL * peak)
        return learning_rate(
            self._optim,
            step - start * self._steps_per_epoch,
            steps_per_epoch=self._steps_per_epoch,
            epochs=part.end - start,
            batch_size=self._batch_size,
            warmup=not number,
        )


def extended(segments: Sequence[Segment], epochs: int, kind: str) -> tuple[Segment, ...]:
    """The segments of a run that now ends after `epochs`. kind: restart or tail, or no, which allows no change.

    Raises UsageError if the run would become shorter than it is.
    """
    end = segments[-1].end
    if epochs == end:
        return tuple(segments)
    if epochs < end:
        raise UsageError(f"--epochs {epochs} is less than the {end} of the run; pass --epochs {end} or more")
    return (*segments, Segment(epochs, kind))
