"""Re-run the batch whose loss was NaN or Inf, and find the first module with NaN or Inf in its output.

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

_SHOWN_SAMPLES = 8


@dataclass(frozen=True)
class Culprit:
    """The first module whose output has NaN or Inf.

    module: its name in the learner. kind: its class. bad: number of NaN and Inf values in its output. values: size of
    its output. inputs, weights: whether all of its inputs and all of its weights are finite. rows: positions in the
    batch of the samples with NaN or Inf; empty if the output has no batch dimension.
    """

    module: str
    kind: str
    bad: int
    values: int
    inputs: bool
    weights: bool
    rows: tuple[int, ...]

    def __str__(self) -> str:
        state = {True: "are finite", False: "have NaN/Inf"}
        return (
            f"{self.module} ({self.kind}): {self.bad:,} of {self.values:,} output values are NaN/Inf; its inputs "
            f"{state[self.inputs]}, its weights {state[self.weights]}"
        )


@dataclass(frozen=True)
class Replayed:
    """The result of a replay.

    step: training step of the batch, from 1. rank: the rank that had the batch. processes: number of processes of the
    run. weights: description of the weights used. before: number of steps by which these weights are older than those
    of the failing step. where: dtype of the activations and device. losses: by name. views: (minimum, maximum, number
    of NaN/Inf values) of each view. culprit: None if every output is finite. samples: (id, name) of each sample.
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
                f"view {i}   from {low:.4g} to {high:.4g}" + (f", {bad:,} values are NaN/Inf" if bad else "")
                for i, (low, high, bad) in enumerate(self.views, 1)
            ),
            "loss     " + "  ".join(f"{name} {value:.4g}" for name, value in self.losses.items()),
            f"first    {self.culprit or 'none: all outputs of all modules are finite'}",
            *self._advice(),
            *self._names(rows),
        ]
        return "\n".join(lines)

    def _names(self, rows: tuple[int, ...]) -> list[str]:
        """Lines with the first few samples, those of `rows` before the others, and the number of the rest."""
        ordered = sorted(enumerate(self.samples), key=lambda item: item[0] not in rows)
        lines = [
            f"sample   {name}{'  <- NaN/Inf here' if i in rows else ''}" for i, (_, name) in ordered[:_SHOWN_SAMPLES]
        ]
        more, bad = len(ordered) - len(lines), max(0, len(rows) - len(lines))
        if more:
            marked = "" if not bad else ", all with NaN/Inf" if bad == more else f", {bad} of them with NaN/Inf"
            lines.append(f"         and {more} more{marked}; the ids of all are in the record")
        return lines

    def _advice(self) -> list[str]:
        if self.culprit is not None or not self.before:
            return []
        steps = "1 step" if self.before == 1 else f"{self.before} steps"
        return [
            f"These weights are {steps} older than those of the failing step, and with them the loss is finite: pass "
            "--rerun to repeat the steps in between first."
        ]


def replay(path: Path, *, rerun: bool = False) -> Replayed:
    """Re-runs the batch of a not-finite.json: the same samples and views, on the newest checkpoint of the run.

    path: the not-finite.json in its run folder. rerun: first repeat the training steps from the checkpoint up to the
    batch, in one process. The run folder is not changed. Raises UsageError for a file that is not such a record, or if
    the photos are missing.
    """
    record = _read(path)
    trainer = reopen(path.parent, compile="off", batched_views="off", cuda_graphs=False)
    try:
        kept = checkpoints(path.parent / "checkpoints")
        weights = f"of step {trainer.global_step}, from {kept[-1]}" if trainer.global_step else "the initial weights"
        if rerun and trainer.global_step < record["step"] - 1:
            log.info("repeating steps %d to %d", trainer.global_step + 1, record["step"] - 1)
            _rerun(trainer, record["step"] - 1)
            weights += f", trained to step {trainer.global_step}"
        return _replay(trainer, record, weights)
    finally:
        trainer.close()


def _read(path: Path) -> dict[str, Any]:
    """Reads and validates the record, which may be a download."""
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
    """Trains up to step `end`."""
    batches = trainer.batches()
    try:
        while trainer.global_step < end:
            trainer.train_step(next(batches))
    finally:
        batches.close()


def _replay(trainer: Trainer, record: dict[str, Any], weights: str) -> Replayed:
    """Forward passes of the recorded batch, in the micro-batches of training. weights: described in words."""
    ids = record["sample_ids"]
    photos = trainer.loader.take(np.array(ids, np.int64))
    size = trainer.view_size(record["step"] - 1)
    views = make_batch(trainer.config, photos, record["epoch"], trainer.dtype, size).views
    losses: list[dict[str, Tensor]] = []
    culprit, first = None, 0
    for micro_views in micro_batches.split(views, trainer.config.accumulate):
        count = micro_views.x_VBCHW.shape[1]
        search = _Search(trainer.learner, count)
        with torch.no_grad(), search:
            losses.append(trainer.step_fn.forward(micro_views).metrics)
        culprit = culprit or search.culprit(first)
        first += count
    local = () if views.local_LBCHW is None else views.local_LBCHW
    groups = (views.x_VBCHW, local, *(extra.x_VBCHW for extra in views.extra))
    processes = read_object(trainer.config.run / "environment.json").get("processes", 1)
    return Replayed(
        step=record["step"],
        rank=record["rank"],
        processes=processes if isinstance(processes, int) else 1,
        weights=weights,
        before=max(0, record["step"] - 1 - trainer.global_step),
        where=f"{str(trainer.dtype).removeprefix('torch.')} on {trainer.device}",
        losses={name: float(torch.stack([metrics[name] for metrics in losses]).mean()) for name in losses[0]},
        views=[_range(x) for group in groups for x in group],
        culprit=culprit,
        samples=[(i, trainer.loader.describe(i)) for i in ids],
    )


def _range(x: Tensor) -> tuple[float, float, int]:
    """Minimum and maximum of the finite values, and the number of NaN and Inf values."""
    finite = x[x.isfinite()].float()
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"),) * 2
    return low, high, x.numel() - len(finite)


class _Search:
    """While entered, checks the output of every module; submodules are checked before the modules that contain them."""

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
        """The first module found, if any. first: position in the batch of the first sample of this micro-batch."""
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
