"""The loop of an evaluation that trains: steps, checkpoints from which the same command resumes, stops on a signal."""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config.serialize import differences
from ..distributed import World
from ..errors import RunError, UsageError
from ..runs import checkpoint
from ..training.signals import StopConsensus, Stopped, StopRequest
from ..training.startup import check_same_start, check_same_step
from .crops import Crops, TrainingCrops

log = logging.getLogger("fastaugself")

KEEP = 1  # checkpoints
REPORT_SECONDS = 30.0


class Trained(Protocol):
    """What the loop trains."""

    def step(self, crops: Crops) -> Tensor | None:
        """Takes the crops of one forward pass; after the last of a step, the losses of the batch, detached [H]."""
        ...

    def state(self) -> dict[str, Any]:
        """The state of the training, for a checkpoint."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        ...


class Checkpoints:
    """The checkpoints of a training in a folder.

    identity: what determines the result, by option; a folder with another identity is refused. minutes: between
    checkpoints.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], world: World, *, minutes: float) -> None:
        self.folder, self._world = folder, world
        self.identity = json.loads(json.dumps(identity))  # as it comes back from a checkpoint
        self._minutes, self._saved = minutes, time.monotonic()

    def newest(self) -> dict[str, Any] | None:
        """The newest readable checkpoint, None without one.

        Raises UsageError if it belongs to other options, or if none can be read.
        """
        try:
            found = checkpoint.newest_readable(self.folder, device=self._world.device)
        except RunError as error:
            raise UsageError(f"{error}; pass another --run to start over") from None
        if found is None:
            return None
        for warning in found.warnings():
            log.warning("%s", warning)
        for option, old, new in differences(found.content["config"], self.identity):
            raise UsageError(
                f"{self.folder} holds an evaluation with --{option} {_text(old)}, this command has {_text(new)}: pass "
                "the same options to resume it, or another --run"
            )
        return found.content

    def due(self) -> bool:
        """Whether to write a checkpoint now."""
        return time.monotonic() - self._saved > 60 * self._minutes

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes a checkpoint, on rank 0; warns if it cannot be written, which costs time at worst."""
        self._saved = time.monotonic()
        if not self._world.is_main:
            return
        try:
            checkpoint.save(self.folder, step, state, self.identity, keep=KEEP)
        except OSError as error:
            log.warning("no checkpoint of step %d was written to %s (%s); this goes on", step, self.folder, error)


def train(trained: Trained, crops: TrainingCrops, checkpoints: Checkpoints, *, epochs: int) -> None:
    """Trains to the end of the last epoch, from the newest checkpoint if there is one.

    Raises UsageError for a checkpoint of other options and for ranks that differ, Stopped after a signal (with a
    checkpoint), and RunError if all losses of a step are NaN or Inf.
    """
    world, per_epoch = crops.world, crops.steps_per_epoch
    check_same_start(checkpoints.identity, 0, "")
    found = checkpoints.newest()
    start, end = 0, epochs * per_epoch
    if found is not None:
        trained.load(found["state"])
        start = found["step"]
        log.info("resume    at step %d of %d", start, end)
    check_same_step(start, checkpoints.folder)
    consensus = StopConsensus(world.size) if world.size > 1 else None
    began, told, done = time.perf_counter(), time.monotonic(), 0
    with StopRequest() as stop, closing(crops.steps(start, end)) as steps:
        for part in steps:
            losses_H = trained.step(part)
            if losses_H is None:
                continue
            done = part.step + 1
            if done % per_epoch == 0 or time.monotonic() > told + REPORT_SECONDS:
                rate = (done - start) * crops.batch_size / (time.perf_counter() - began)
                _tell(losses_H, done, end, per_epoch, rate)
                told = time.monotonic()
            requested = stop.requested if consensus is None else consensus.reached(stop.requested)
            if done < end and (requested or checkpoints.due()):
                checkpoints.save(done, trained.state())
            if requested and done < end:
                log.warning("stopped at step %d; run the same command again to resume", done)
                raise Stopped(requested)
    if consensus is not None:
        consensus.close()
    if done == end:
        checkpoints.save(end, trained.state())


def _tell(losses_H: Tensor, step: int, end: int, per_epoch: int, rate: float) -> None:
    """Logs the losses of a step; RunError if none is finite."""
    finite = losses_H[torch.isfinite(losses_H)]
    if not len(finite):
        raise RunError(f"the loss is NaN or Inf at step {step}: pass a lower --lr")
    low, high = float(finite.min()), float(finite.max())
    text = f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
    log.info("step %d/%d  epoch %.4g  loss %s  %.0f photos/s", step, end, step / per_epoch, text, rate)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
