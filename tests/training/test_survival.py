"""Robustness of runs: kills at random moments, full disks, NaN and Inf losses, signals, untrusted checkpoints."""

import dataclasses
import json
import logging
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_runs import ALONE, metrics, saved_steps, saved_weights, train

from fastaugself import Checkpoint, Log, environment
from fastaugself.config.serialize import to_dict
from fastaugself.errors import RunError, UsageError
from fastaugself.pretraining import run_pretraining
from fastaugself.runs import checkpoint
from fastaugself.training.signals import Stopped
from fastaugself.training.step import TrainStep
from fastaugself.training.trainer import Trainer


@pytest.fixture(autouse=True)
def hangups_as_in_a_terminal():
    """A hangup ends processes, also where the tests themselves run under nohup, whose children ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


KILLS = int(os.environ.get("FASTAUGSELF_KILLS", "3"))


def config(beton, run, **changes):
    """A configuration that saves a checkpoint after every step."""
    return tiny_runs.config(beton, run, **{"checkpoint": Checkpoint(minutes=1e-6), **changes})


@pytest.fixture()
def messages(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fastaugself"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="fastaugself")
    return lambda: [r.getMessage() for r in caplog.records if r.name.startswith("fastaugself")]


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(beton, tmp_path):
    """FASTAUGSELF_KILLS sets the number of kills (for example 60); the run is long enough for it."""
    epochs = 4 * KILLS
    whole = train(config(beton, tmp_path / "whole", epochs=epochs))
    killed = config(beton, tmp_path / "killed", epochs=epochs)
    killed.run.mkdir()
    (tmp_path / "config.json").write_text(json.dumps(to_dict(killed)))
    script = Path(__file__).parents[2] / "tests" / "helpers" / "killed_runs.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "config.json"), str(KILLS), "7"],
        capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kills, reached = done.stdout.split(maxsplit=1)
    print(f"{kills} kills")
    assert int(kills) >= KILLS // 2, "the run was over before it was killed"
    assert json.loads(reached) == sorted(json.loads(reached)), "a kill cost steps that had been saved"
    a, b = saved_weights(whole.config.run), saved_weights(killed.run)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if isinstance(a[k], torch.Tensor))
    assert [m["step"] for m in metrics(killed.run)] == list(range(1, whole.total_steps + 1))


def test_a_full_disk_stops_neither_the_run_nor_costs_older_checkpoints(beton, tmp_path, messages):
    size = checkpoint.save(tmp_path / "size", 1, train(config(beton, tmp_path / "a", max_steps=1)).state(), {}, keep=1)
    run = tmp_path / "run"
    train(config(beton, run, max_steps=2))
    before = saved_steps(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size.stat().st_size // 2, hard))  # every write beyond it fails
        with pytest.raises(RunError, match=r"no checkpoint of step 4 was written.*free disk space"):
            train(config(beton, run, max_steps=4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert saved_steps(run) == before and not list((run / "checkpoints").glob("*.partial"))
    (line, *_) = messages()
    assert "no checkpoint of step 3" in line and "step-000000002.pt" in line and "training continues" in line
    train(config(beton, run, max_steps=3))
    assert saved_steps(run) == [2, 3]  # with free space again, it resumed


def test_a_folder_that_cannot_be_written_is_refused_before_work(beton, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--run .*file/run cannot be written to .* pass another folder"):
        run_pretraining(config(beton, tmp_path / "file" / "run"), ALONE)


def test_a_log_that_cannot_be_written_does_not_end_the_run(beton, tmp_path, messages):
    run = tmp_path / "run"
    run.mkdir()
    trainer = Trainer(config(beton, run, max_steps=3), ALONE)
    original = TrainStep.__call__

    def blocked(self, *args, **kwargs):
        path = run / "metrics.jsonl"
        if not path.is_dir():
            path.unlink(missing_ok=True)
            path.mkdir()  # cannot be opened for writing from now on
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", blocked)
        trainer.fit()
    trainer.close()
    assert trainer.global_step == 3 and len([m for m in messages() if "cannot be written" in m]) == 1


def nan_loss(at):
    """A forward pass of TrainStep whose loss, and so its gradients, are NaN at step `at` (counted from 1)."""
    original = TrainStep.forward

    def forward(self, views):
        self.calls = getattr(self, "calls", 0) + 1
        step = original(self, views)
        return step._replace(loss=step.loss * float("nan")) if self.calls == at else step

    return forward


def test_a_nan_loss_is_reported_with_step_rank_and_samples(beton, tmp_path, monkeypatch):
    run = tmp_path / "run"
    configuration = config(
        beton, run, log=Log(every=6, tensorboard=False), checkpoint=Checkpoint(minutes=60, milestone=0.5)
    )
    run.mkdir()
    trainer = Trainer(configuration, ALONE)
    seen = []
    train_step = Trainer.train_step
    monkeypatch.setattr(
        Trainer, "train_step", lambda self, batch: (seen.append(batch.ids_B), train_step(self, batch))[1]
    )
    monkeypatch.setattr(TrainStep, "forward", nan_loss(3))
    message = "the loss is NaN or Inf at step 3 on rank 0; "
    with pytest.raises(RunError, match=message + r"the last good checkpoint is .*02.pt.*`fastaugself replay .*json`"):
        trainer.fit()
    trainer.close()
    assert len(seen) == 5, "the checkpoint of step 4 was not written, and ended the run a step later"
    assert saved_steps(run) == [2]
    assert all(v.isfinite().all() for v in saved_weights(run).values() if isinstance(v, torch.Tensor))
    dumped = json.loads((run / "not-finite.json").read_text())
    assert dumped["sample_ids"] == seen[2].tolist() and (dumped["step"], dumped["rank"], dumped["epoch"]) == (3, 0, 0)

    run = tmp_path / "logged"
    with pytest.raises(RunError, match=message + "there is no checkpoint yet"):
        train(dataclasses.replace(configuration, run=run, checkpoint=Checkpoint(minutes=60)))
    assert saved_steps(run) == []


def test_nan_weights_end_the_run_even_if_the_losses_are_finite(beton, tmp_path, monkeypatch):
    train_step = Trainer.train_step

    def unseen(self, batch):
        step = train_step(self, batch)
        with torch.no_grad():
            self.learner.unused = torch.nn.Parameter(torch.full((1,), float("nan")))
        return step

    monkeypatch.setattr(Trainer, "train_step", unseen)
    with pytest.raises(RunError, match="the weights are NaN or Inf at step 2; there is no checkpoint yet"):
        train(config(beton, tmp_path))
    assert saved_steps(tmp_path) == [] and not (tmp_path / "not-finite.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(beton, tmp_path, monkeypatch, number):
    run = tmp_path / "run"
    train_step = Trainer.train_step

    def signalled(self, batch):
        if self.global_step == 4:
            os.kill(os.getpid(), number)
        return train_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", signalled)
        with pytest.raises(Stopped) as stopped:
            train(config(beton, run, checkpoint=Checkpoint(minutes=60)))
    assert stopped.value.exit_code == 128 + number
    assert saved_steps(run) == [5]


def test_further_hangups_do_not_cost_the_checkpoint_and_ignored_ones_stay_ignored(beton, tmp_path, monkeypatch):
    """The terminal, the shell and torchrun may each send one; under nohup none counts."""
    train_step, save = Trainer.train_step, Trainer.save

    def signalled(self, *arguments, **options):
        os.kill(os.getpid(), signal.SIGHUP)
        return (save if options else train_step)(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "train_step", signalled)
    monkeypatch.setattr(Trainer, "save", signalled)
    with pytest.raises(Stopped, match="SIGHUP"):
        train(config(beton, tmp_path / "a", checkpoint=Checkpoint(minutes=60)))
    assert saved_steps(tmp_path / "a") == [1] and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(config(beton, tmp_path / "b", checkpoint=Checkpoint(minutes=60), max_steps=3))
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert saved_steps(tmp_path / "b") == [3]


def test_a_closed_terminal_ends_the_run_with_a_checkpoint(beton, tmp_path):
    """The run is the leader of a session whose terminal is closed while it trains."""
    run, recipe = tmp_path / "run", Path(__file__).parents[2] / "recipes" / "imagenet_moco_augself.py"
    options = ["--data.train", beton, "--batch-size", "8", "--view.size", "16", "--augment.blur-kernel", "5"]
    options += ["--backbone.name", "resnet18", "--backbone.width", "8", "--epochs", "100000", "--device", "cpu"]
    options += ["--method.queue", "64", "--log.no-tensorboard", "--log.every", "1", "--run", run]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-P", os.fspath(recipe), *map(os.fspath, options)])
    end = time.monotonic() + 240
    while not (run / "metrics.jsonl").exists() and time.monotonic() < end:
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        select.select([terminal], [], [], 0.1)[0] and os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert (
        saved_steps(run)[-1] == steps[-1] and "run the same command again to resume" in (run / "train.log").read_text()
    )


def test_the_newest_checkpoints_and_the_milestones_stay(beton, tmp_path):
    train(config(beton, tmp_path, epochs=4, checkpoint=Checkpoint(minutes=1e-6, keep=2, milestone=1.5)))
    assert saved_steps(tmp_path) == [6, 12, 15, 16]
    train(config(beton, tmp_path / "rare", epochs=4, checkpoint=Checkpoint(minutes=60, keep=1, milestone=1.5)))
    assert saved_steps(tmp_path / "rare") == [6, 12, 16]


def test_resuming_with_other_versions_is_logged(beton, tmp_path, monkeypatch, messages):
    train(config(beton, tmp_path, max_steps=1))
    train(config(beton, tmp_path, max_steps=2))
    assert messages() == []
    monkeypatch.setattr(checkpoint, "versions", lambda: {**environment.versions(), "torch": "9.0"})
    train(config(beton, tmp_path, max_steps=3))
    (line,) = messages()
    assert f"step-000000002.pt was written with torch {environment.versions()['torch']} (here 9.0)" in line
    assert saved_steps(tmp_path) == [2, 3]


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_an_untrusted_checkpoint_runs_no_code(beton, tmp_path, monkeypatch, messages):
    run = tmp_path / "run"
    train(config(beton, run, max_steps=2))
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "step": 99, "config": Bomb()}, run / "checkpoints" / "step-000000099.pt")
    trainer = Trainer(config(beton, run), ALONE)
    trainer.close()
    assert trainer.global_step == 2 and not (tmp_path / "exploded").exists()
    assert any("step-000000099.pt cannot be read" in m and "trying the one before" in m for m in messages())


def test_leftovers_of_a_killed_write_are_removed(beton, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000000001.pt.partial").write_bytes(b"half")
    (tmp_path / "config.json.123-abc.partial").write_bytes(b"half")
    run_pretraining(config(beton, tmp_path, max_steps=1), ALONE)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000000001.pt"]
    assert not list(tmp_path.glob("*.partial"))
