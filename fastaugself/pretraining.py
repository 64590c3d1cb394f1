"""Pretraining from Python: train a configuration, and read what a run has written."""

import html
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from . import distributed
from .config.batch_size import few_steps
from .config.checks import check_processes
from .config.schema import Pretrain
from .config.serialize import to_dict
from .distributed import World
from .environment import launch_shapes
from .errors import UsageError
from .evaluation.encoder import Encoder
from .evaluation.encoders import load_encoder
from .export.backbone import export_backbone, export_run
from .files import remove_leftovers, replace_file
from .report.compare import report_runs
from .report.report import write_report
from .runs.checkpoint import checkpoints
from .runs.folder import read_pretrain
from .runs.records import read_lines
from .training.callbacks import Callback
from .training.console import drop_output
from .training.logs import log, own_logging, start_logging
from .training.prepare import check_run_folder, prepare_data
from .training.setup import backend_settings, check_installation
from .training.startup import only_trainer
from .training.trainer import Trainer


class Run:
    """A run folder: its configuration, records and encoder.

    folder: as `--run` names it. config: the configuration. step: the optimizer step of its newest checkpoint, 0 if
    there is none.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.config: Pretrain = read_pretrain(self.folder)

    @property
    def step(self) -> int:
        found = checkpoints(self.folder / "checkpoints")
        return int(found[-1].stem.removeprefix("step-")) if found else 0

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl by step: losses, learning rate, pairs per second, ...

        `pandas.DataFrame(run.metrics())` is a table.
        """
        return read_lines(self.folder / "metrics.jsonl")

    def evaluations(self) -> list[dict[str, Any]]:
        """The checks on `--data.val` and `--log.check` by step: k-NN and linear accuracy, effective rank, ..."""
        return read_lines(self.folder / "evaluations.jsonl")

    def load_encoder(self, device: Literal["auto", "cuda", "cpu"] = "auto", *, size: int | None = None) -> Encoder:
        """The encoder of the newest checkpoint; see `fastaugself.load_encoder`."""
        return load_encoder(str(self.folder), device=device, size=size)

    def report(self) -> Path:
        """Writes report.html again from the newest checkpoint and returns its path."""
        return report_runs([self.folder])

    def export(self, out: str | os.PathLike[str] | None = None, *, onnx: bool = False) -> Path:
        """Exports the backbone of the newest checkpoint to `out` (default: export/ in the folder); returns the path.

        onnx: also write model.onnx.
        """
        return export_run(self.folder, None if out is None else Path(out), onnx=onnx)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self._title}, step {self.step})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the newest value of every metric and check."""
        rows = [("run", str(self.folder)), ("model", self._title), ("step", str(self.step))]
        for records in (self.metrics(), self.evaluations()):
            newest = records[-1] if records else {}
            rows += [(name, f"{value:.4g}") for name, value in newest.items() if name != "step"]
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
        return f"<table>{''.join(cells)}</table>"

    @cached_property
    def _title(self) -> str:
        objectives = [*self.config.objectives, *(("cassle",) if self.config.cassle.condition_dim else ())]
        return " + ".join([self.config.method.title, *objectives]) + f", {self.config.backbone.name}"


def pretrain(config: Pretrain, *, resume: bool = True, callbacks: Sequence[Callback] = ()) -> Run:
    """Trains, exports the backbone and writes the report, all in the folder `config.run`; returns the run.

    One process, or each process of torchrun or of a process group that is already initialised. Nothing of the command
    line is read. Ctrl-C (or the stop button of a notebook) ends training after the step with a checkpoint and raises
    KeyboardInterrupt; the same call goes on from there.

    config: a recipe's (`load_recipe`), or your own. resume: continue from the newest checkpoint in `config.run`; False
    refuses a folder that has one, and never deletes it. callbacks: code of your own in the training loop.

    Raises UsageError (a ValueError) for a configuration, data or folder that cannot work, before training starts, and
    RunError (a RuntimeError) for failures during training: a loss that is NaN, a full disk, damaged data.
    """
    if not isinstance(config, Pretrain):
        raise UsageError(
            f"pretrain takes a Pretrain configuration, got {type(config).__name__}: pass load_recipe(NAME), or "
            "Pretrain(...)"
        )
    with own_logging(), distributed.joined(config.device) as world:
        run_pretraining(config, world, resume=resume, callbacks=callbacks)
    return Run(config.run)


def open_run(folder: str | os.PathLike[str]) -> Run:
    """The run in a folder, also while it is training. Raises UsageError if the folder holds none."""
    return Run(folder)


def run_pretraining(config: Pretrain, world: World, *, resume: bool = True, callbacks: Sequence[Callback] = ()) -> None:
    """Trains, exports the backbone and writes the report; arguments as for `pretrain`, on a process of `world`."""
    drop_output()
    start_logging(None, is_main=world.is_main)
    check_processes(config, world.size)
    check_installation(config, world.device)
    check_run_folder(config)
    if not resume and (found := checkpoints(config.run / "checkpoints")):
        raise UsageError(
            f"{config.run} holds a run ({found[-1].name}), and resume=False does not replace it: pass resume=True to "
            f"go on, or run={str(next_folder(config.run))!r}"
        )
    with only_trainer(config.run), backend_settings(config, world.device):
        _run(config, world, callbacks)


def next_folder(run: Path) -> Path:
    """The first folder `run-2`, `run-3`, ... that does not exist."""
    return next(new for i in range(2, 1_000_000) if not (new := run.with_name(f"{run.name}-{i}")).exists())


def _run(config: Pretrain, world: World, callbacks: Sequence[Callback]) -> None:
    prepared = prepare_data(config, world)
    trainer = Trainer(prepared, world, identity=to_dict(config), callbacks=callbacks)
    try:
        trainer.open_evaluation()  # before the folder's config.json is replaced
        if world.is_main:
            _open_folder(config)
            _announce(trainer)
        trainer.fit()
    finally:
        trainer.close()
    distributed.on_main(lambda: _finish(trainer, config), what="writing the export and the report")


def _finish(trainer: Trainer, config: Pretrain) -> None:
    """Exports the backbone and writes the report."""
    exported = export_backbone(
        trainer.learner, config, config.run / "export", step=trainer.global_step, samples=trainer.loader.num_samples
    )
    report = write_report(config.run, trainer)
    log.info("backbone  %s", exported)
    if report is not None:
        log.info("report    %s", report)


def _open_folder(config: Pretrain) -> None:
    """Creates the run folder, checks that it is writable, writes config.json and starts the log."""
    text = json.dumps(to_dict(config), indent=2) + "\n"
    try:
        (config.run / "checkpoints").mkdir(parents=True, exist_ok=True)
        remove_leftovers(config.run)
        replace_file(config.run / "config.json", text.encode())
        replace_file(config.run / "checkpoints" / "try", b"")
        (config.run / "checkpoints" / "try").unlink()
        start_logging(config.run, is_main=True)
    except OSError as error:
        raise UsageError(f"--run {config.run} cannot be written to ({error}); pass another folder") from None


def _announce(trainer: Trainer) -> None:
    config, world = trainer.config, trainer.world
    parameters = sum(p.numel() for p in trainer.learner.method.backbone.parameters())
    lr = config.optim.lr * config.batch_size / 256
    where = f"{world.size} processes on {trainer.device.type}" if world.size > 1 else str(trainer.device)
    log.info("run       %s", config.run)
    log.info(
        "photos    %d of %s, read by %s%s",
        trainer.loader.num_samples,
        trainer.loader.name,
        trainer.loader.source,
        f" ({trainer.loader.source_reason})" if trainer.loader.source_reason else "",
    )
    log.info(
        "model     %s, width %d, %.1f M parameters; %s on %s%s",
        config.backbone.name,
        config.backbone.width,
        parameters / 1e6,
        str(trainer.dtype).removeprefix("torch."),
        where,
        ", compiled" if trainer.step_fn.compiled else "",
    )
    if (shapes := launch_shapes(trainer.device)) and shapes.note:
        log.info("kernels   %s; %s", shapes.note, shapes.remedy)
    log.info(
        "schedule  %d epochs of %d steps, batch %d (%d per process), lr %g = %g x %d/256",
        config.epochs,
        trainer.steps_per_epoch,
        config.batch_size,
        config.batch_size // world.size,
        lr,
        config.optim.lr,
        config.batch_size,
    )
    if not trainer.global_step and (hint := few_steps(config, world.size, trainer.loader.num_samples)):
        log.info("hint      %s", hint)
    if trainer.global_step:
        log.info("resume    at step %d of %d", trainer.global_step, trainer.last_step)
    baseline = "  ".join(f"{name} {value:.4f}" for name, value in trainer.baseline_losses().items())
    if baseline:
        log.info("baseline  losses of constant predictions: %s", baseline)
    if trainer.global_step < trainer.last_step:
        log.info("training  %d steps; the first is the slowest", trainer.last_step - trainer.global_step)
    else:
        log.info("finished  already at step %d; only export and report are written again", trainer.global_step)
