"""Code of one's own in the training loop: every N steps, at checkpoints and at checks, without editing the trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..aware.learner import StepOutput
from ..errors import UsageError

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Base class: override what you need. Every process calls every method at the same steps, except where noted.

    every: number of steps between calls of `on_step`. `trainer.global_step` is the number of finished steps,
    `trainer.learner` the model with its heads, `trainer.world.is_main` whether this is rank 0; `trainer.add_metrics`
    adds values to the next log line. An exception ends the run; the checkpoints stay.
    """

    every: int = 1

    def on_start(self, trainer: "Trainer") -> None:
        """Before the first step, after a checkpoint was loaded."""

    def on_step(self, trainer: "Trainer", output: StepOutput) -> None:
        """After every `every`-th step. output: its losses, on the device: reading a value waits for the device."""

    def on_checkpoint(self, trainer: "Trainer", path: Path) -> None:
        """After a checkpoint was written to `path`; rank 0 only."""

    def on_check(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        """After the checks on `--data.val` and `--log.check`. record: the line of evaluations.jsonl; rank 0 only."""

    def on_end(self, trainer: "Trainer") -> None:
        """After the last step of this process and its checkpoint."""


class Callbacks(Callback):
    """Several callbacks as one. Raises UsageError for what is no callback, and for an `every` below 1."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UsageError(f"callbacks must be instances of fastaugself.Callback, got {callback!r}")
            if callback.every < 1:
                raise UsageError(f"{type(callback).__name__}.every must be at least 1 step, got {callback.every}")
        self._each = tuple(callbacks)

    def on_start(self, trainer: "Trainer") -> None:
        for callback in self._each:
            callback.on_start(trainer)

    def on_step(self, trainer: "Trainer", output: StepOutput) -> None:
        for callback in self._each:
            if trainer.global_step % callback.every == 0:
                callback.on_step(trainer, output._replace(loss=output.loss.detach()))

    def on_checkpoint(self, trainer: "Trainer", path: Path) -> None:
        for callback in self._each:
            callback.on_checkpoint(trainer, path)

    def on_check(self, trainer: "Trainer", record: dict[str, Any]) -> None:
        for callback in self._each:
            callback.on_check(trainer, record)

    def on_end(self, trainer: "Trainer") -> None:
        for callback in self._each:
            callback.on_end(trainer)
