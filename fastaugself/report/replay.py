"""The batch whose loss was not finite, once more: where do values that are not finite come from?

Shape suffixes: V views, B batch.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..runs.checkpoint import checkpoints
from ..runs.records import read_object
from ..training import micro_batches
from ..training.batch import make_batch
from ..training.prefetch import tensors_in
from ..training.trainer import Trainer
from .reopen import reopen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Culprit:
    """The first module that gave values that are not finite.

    module: its name in the learner. kind: its class. bad, values: how many of its values are not finite, and of how
    many. inputs, weights: whether all that it was given, and all of its own weights, are finite. rows: positions in
    the batch of the samples it failed for; empty where they cannot be told.
    """

    module: str
    kind: str
    bad: int
    values: int
    inputs: bool
    weights: bool
    rows: tuple[int, ...]

    def __str__(self) -> str:
        state = {True: "finite", False: "not"}
        return (
            f"{self.module} ({self.kind}): {self.bad:,} of {self.values:,} values are not finite; its inputs are "
            f"{state[self.inputs]}, its weights are {state[self.weights]}"
        )


@dataclass(frozen=True)
class Replayed:
    """What a replay found.

    step: of the batch, from 1. rank: of the process that had it. processes: of the run. weights: where they are from.
    before: steps between these weights and those that the batch met. where: device and type of the activations.
    losses: by part. views: (lowest, highest, values that are not finite) of each view. culprit: None where all is
    finite. samples: id and names of each.
    """

    step: int
    rank: int
    processes: int
    weights: str
    before: int
    where: str
    losses: dict[str, float]
    views: list[tuple[float, float, int]]
    culprit: Culprit | None
    samples: list[tuple[int, str]]

    def __str__(self) -> str:
        rows = self.culprit.rows if self.culprit else ()
        several = f", rank {self.rank} of {self.processes}" if self.processes > 1 else ""
        lines = [
            f"batch    {len(self.samples)} samples of step {self.step}{several}; {self.where}",
            f"weights  {self.weights}",
            *(
                f"view {i}   from {low:.4g} to {high:.4g}" + (f", {bad:,} values not finite" if bad else "")
                for i, (low, high, bad) in enumerate(self.views, 1)
            ),
            "loss     " + "  ".join(f"{name} {value:.4g}" for name, value in self.losses.items()),
            f"first    {self.culprit or 'none: every module gave finite values'}",
            *(f"sample   {name}{'  <- not finite here' if i in rows else ''}" for i, (_, name) in self._ordered(rows)),
            *self._advice(),
        ]
        return "\n".join(lines)

    def _ordered(self, rows: tuple[int, ...]) -> list[tuple[int, tuple[int, str]]]:
        return sorted(enumerate(self.samples), key=lambda item: item[0] not in rows)

    def _advice(self) -> list[str]:
        if self.culprit is not None or not self.before:
            return []
        steps = "a step" if self.before == 1 else f"{self.before} steps"
        return [
            f"These weights are {steps} older than those that the batch met, and the batch alone is not to blame: "
            "--rerun takes the steps between again."
        ]


def replay(path: Path, *, rerun: bool = False) -> Replayed:
    """Runs the batch of a not-finite.json again: the same samples and views, on the run's newest checkpoint.

    path: in its run folder. rerun: take the steps from the checkpoint to the batch again first, as one process.
    Nothing in the run folder changes. Raises UsageError for a file that is none, or photos that are not there.
    """
    record = _read(path)
    trainer = reopen(path.parent, compile="off", batched_views="off", cuda_graphs=False)
    try:
        kept = checkpoints(path.parent / "checkpoints")
        weights = (
            f"of step {trainer.global_step}, from {kept[-1]}" if trainer.global_step else "those the run began with"
        )
        if rerun and trainer.global_step < record["step"] - 1:
            log.info("taking steps %d to %d again", trainer.global_step + 1, record["step"] - 1)
            _rerun(trainer, record["step"] - 1)
            weights += f", trained to step {trainer.global_step}"
        return _replay(trainer, record, weights)
    finally:
        trainer.close()


def _read(path: Path) -> dict[str, Any]:
    """The record, checked: it may come from elsewhere."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; pass the not-finite.json of a run folder")
    try:
        record = json.loads(path.read_text())
        ids = record["sample_ids"]
        whole = all(type(record[name]) is int and record[name] >= 0 for name in ("step", "rank", "epoch"))
        if not whole or not ids or not all(type(i) is int for i in ids):
            raise ValueError("its step, rank, epoch and sample_ids are not numbers")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be replayed ({type(error).__name__}: {error}); pass the not-finite.json of a run folder"
        ) from None
    return dict(record)


def _rerun(trainer: Trainer, end: int) -> None:
    batches = trainer.batches()
    try:
        while trainer.global_step < end:
            trainer.train_step(next(batches))
    finally:
        batches.close()


def _replay(trainer: Trainer, record: dict[str, Any], weights: str) -> Replayed:
    ids = record["sample_ids"]
    photos = trainer.loader.take(np.array(ids, np.int64))
    views, targets, _ = make_batch(trainer.config, photos, record["epoch"], trainer.dtype)
    losses: list[dict[str, Tensor]] = []
    culprit, first = None, 0
    for part_views, part_targets in micro_batches.split(views, targets, trainer.config.accumulate):
        count = part_views.x_VBCHW.shape[1]
        search = _Search(trainer.learner, count)
        with torch.no_grad(), search:
            losses.append(trainer.step_fn.forward(part_views, part_targets).metrics)
        culprit = culprit or search.culprit(first)
        first += count
    processes = read_object(trainer.config.run / "environment.json").get("processes", 1)
    return Replayed(
        step=record["step"],
        rank=record["rank"],
        processes=processes if isinstance(processes, int) else 1,
        weights=weights,
        before=max(0, record["step"] - 1 - trainer.global_step),
        where=f"{str(trainer.dtype).removeprefix('torch.')} on {trainer.device}",
        losses={name: float(torch.stack([part[name] for part in losses]).mean()) for name in losses[0]},
        views=[_extent(x) for x in (*views.x_VBCHW, *(() if views.local_LBCHW is None else views.local_LBCHW))],
        culprit=culprit,
        samples=[(i, trainer.loader.describe(i)) for i in ids],
    )


def _extent(x: Tensor) -> tuple[float, float, int]:
    finite = x[x.isfinite()].float()
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"),) * 2
    return low, high, x.numel() - len(finite)


class _Search:
    """While entered, looks at what every module gives; inner modules come before those they are part of."""

    def __init__(self, learner: nn.Module, count: int) -> None:
        self._learner, self._count = learner, count
        self._found: tuple[str, nn.Module, Any, Any] | None = None

    def __enter__(self) -> None:
        self._hooks = [
            module.register_forward_hook(self._look_at(name or "learner"))
            for name, module in self._learner.named_modules()
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _look_at(self, name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._found is None and not _finite(_all_tensors(output)):
                self._found = (name, module, [t.clone() for t in _all_tensors(inputs)], _all_tensors(output))

        return look

    def culprit(self, first: int) -> Culprit | None:
        """The first module found, if any. first: position in the batch of the first sample it was given."""
        if self._found is None:
            return None
        name, module, inputs, outputs = self._found
        bad = [~t.isfinite() for t in outputs]
        rows: set[int] = set()
        for t in bad:
            if t.ndim and len(t) == self._count:
                rows |= set(t.reshape(self._count, -1).any(1).nonzero().flatten().tolist())
        return Culprit(
            module=name,
            kind=type(module).__name__,
            bad=sum(int(t.sum()) for t in bad),
            values=sum(t.numel() for t in bad),
            inputs=_finite(inputs),
            weights=_finite(list(module.parameters())),
            rows=tuple(first + row for row in sorted(rows)),
        )


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors)


def _all_tensors(value: Any) -> list[Tensor]:
    return tensors_in(tuple(value.values()) if isinstance(value, dict) else value)
