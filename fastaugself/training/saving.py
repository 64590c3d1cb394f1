"""The checkpoints of a run: when one is due, what a failure to write it means, and which one a run goes on from."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config.schema import Pretrain
from ..data.loader import Loader
from ..distributed import World
from ..errors import RunError, UsageError
from ..runs import checkpoint
from .schedule import Segment, extended
from .watch import all_finite

log = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of a run on rank 0, and finds the newest.

    identity: the configuration that is stored in checkpoints and compared with theirs. weights_nonfinite: whether
    weights were NaN or Inf when a checkpoint was due.
    """

    def __init__(self, config: Pretrain, world: World, identity: dict[str, Any], *, steps_per_epoch: int) -> None:
        self._config, self._is_main, self._identity = config, world.is_main, identity
        self._folder, self._options = config.run / "checkpoints", config.checkpoint
        self._milestone = round(config.checkpoint.milestone * steps_per_epoch)
        self._saved, self.weights_nonfinite = time.perf_counter(), False

    def exist(self) -> bool:
        """Whether there is a checkpoint, readable or not."""
        return bool(checkpoint.checkpoints(self._folder))

    def newest(self, loader: Loader, device: torch.device) -> tuple[dict[str, Any], tuple[Segment, ...]] | None:
        """The newest checkpoint and the segments of the learning rate's schedule; None without a checkpoint.

        loader: of the training photos. Raises UsageError for a checkpoint of another configuration or other photos.
        """
        config = self._config
        found, notes = checkpoint.latest(self._folder, self._identity, device=device, extend=config.extend != "no")
        for note in notes:
            log.warning("%s", note)
        if found is None:
            return None
        state = found["state"]
        if state["samples"] != loader.num_samples:
            raise UsageError(
                f"the run in {config.run} was trained on {state['samples']} photos, {loader.name} has "
                f"{loader.num_samples}; pass the same photos, or another --run"
            )
        if state["fingerprint"] != loader.fingerprint:
            raise UsageError(
                f"the run in {config.run} was trained on other photos than {loader.name}, or on the same photos in "
                f"another order; pass the same files in the same order, or another --run"
            )
        saved = [Segment(*values) for values in state.get("segments", [(found["config"]["epochs"], "start")])]
        segments = extended(saved, config.epochs, config.extend)
        if len(segments) > len(saved):
            log.info("extend    from %d to %d epochs (%s)", saved[-1].end, config.epochs, config.extend)
        return found, segments

    def due(self, step: int) -> bool:
        """Whether to write a checkpoint after this step."""
        minutes = (time.perf_counter() - self._saved) / 60
        return minutes > self._options.minutes or bool(self._milestone and step % self._milestone == 0)

    def save(
        self, step: int, learner: nn.Module, state: Callable[[], dict[str, Any]], *, last: bool = False
    ) -> Path | None:
        """Writes a checkpoint on rank 0 and returns its path; None if it is not written.

        If writing fails, logs a warning and keeps older checkpoints. Does not write weights with NaN or Inf, but sets
        `weights_nonfinite`. last: of the run; raises RunError in both cases, for NaN or Inf on all ranks.
        """
        if not self._is_main and not last:
            return None
        self._saved = time.perf_counter()
        self.weights_nonfinite = not all_finite(list(learner.parameters()))
        if self.weights_nonfinite and last:
            raise RunError(self.with_remedy(f"the weights are NaN or Inf at step {step}"))
        if self.weights_nonfinite or not self._is_main:
            return None
        folder, options = self._folder, self._options
        try:
            return checkpoint.save(folder, step, state(), self._identity, keep=options.keep, milestone=self._milestone)
        except OSError as error:
            kept = checkpoint.checkpoints(folder)
            newest = f"the newest is {kept[-1].name}" if kept else "there is none yet"
            message = f"no checkpoint of step {step} was written to {folder} ({error}); {newest}"
            if last:
                raise RunError(f"{message}; free disk space and run the same command again to resume") from None
            log.warning("%s; training continues, the next attempt is in %g minutes", message, options.minutes)
            return None

    def with_remedy(self, what: str) -> str:
        """A message about NaN or Inf with the last good checkpoint and options to try."""
        kept = checkpoint.checkpoints(self._folder)
        newest = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        return f"{what}; {newest}; try a lower --optim.lr, a longer --optim.warmup-epochs or --precision bf16"
