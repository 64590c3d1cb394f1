"""`fastaugself replay`: the source of a NaN or Inf loss."""

import dataclasses

import pytest
import torch
from tiny_runs import config, train

from fastaugself import Checkpoint, Optim
from fastaugself.cli.main import main as cli
from fastaugself.errors import RunError, UsageError
from fastaugself.report import replay as replay_module
from fastaugself.report.replay import replay
from fastaugself.runs import checkpoint
from fastaugself.training.step import TrainStep

MODULE = "method.backbone.layer2.0.conv1"


@pytest.fixture(scope="module")
def diverged(beton, tmp_path_factory):
    """The not-finite.json of a run whose weights explode in the first step."""
    run = tmp_path_factory.mktemp("runs") / "diverged"
    with pytest.raises(RunError, match=r"fastaugself replay .*not-finite\.json"):
        train(config(beton, run, optim=Optim(lr=1e30), checkpoint=Checkpoint(minutes=60)))
    return run / "not-finite.json"


def with_checkpoint(record, change):
    """A run folder like that of `record`, with a checkpoint of step 1 after `change` was applied to the learner."""
    run = record.parent.with_name(f"with_{change.__name__}")
    run.mkdir()
    for name in ("config.json", "environment.json", "not-finite.json"):
        (run / name).write_bytes((record.parent / name).read_bytes())
    trainer = replay_module.reopen(run)
    with torch.no_grad():
        change(trainer.learner)
    trainer.global_step = 1
    checkpoint.save(run / "checkpoints", 1, trainer.state(), trainer.identity, keep=1)
    trainer.close()
    return run / "not-finite.json"


def test_a_batch_is_finite_on_the_initial_weights_and_fails_after_the_steps_in_between(diverged):
    files = sorted(diverged.parent.rglob("*"))
    found = replay(diverged)
    assert found.culprit is None and found.before == found.step - 1 == 1
    assert set(found.losses) == {"loss", "loss_ssl", "loss_crop", "loss_color"} and all(
        value == value for value in found.losses.values()
    )
    lines = str(found).splitlines()
    assert "--rerun" in lines[-10] and lines[-11].startswith("first  ")  # the advice follows the finding
    assert all(line.startswith("sample   ") for line in lines[-9:-1])
    assert lines[-1] == "         and 8 more; the ids of all are in the record"
    again = replay(diverged, rerun=True)
    assert again.culprit is not None and again.before == 0 and "--rerun" not in str(again)
    assert again.losses["loss"] != again.losses["loss"]
    assert sorted(diverged.parent.rglob("*")) == files


def test_the_samples_and_their_views_are_those_of_the_run(diverged, beton, monkeypatch):
    """The run itself makes the same views of the same photos at that step."""
    trainer = replay_module.reopen(diverged.parent)
    batches = trainer.batches()
    next(batches)
    expected_batch = next(batches)  # of step 2
    seen = []
    forward = TrainStep.forward
    monkeypatch.setattr(TrainStep, "forward", lambda self, v: (seen.append(v.x_VBCHW.clone()), forward(self, v))[1])
    found = replay(diverged)
    assert [i for i, _ in found.samples] == expected_batch.ids_B.tolist()
    assert torch.equal(seen[0], expected_batch.views.x_VBCHW)
    expected = [(float(x.min()), float(x.max()), 0) for x in expected_batch.views.x_VBCHW]
    assert found.views == expected
    assert all(name.startswith(f"{beton}: sample {i} (") and name.endswith(".jpg)") for i, name in found.samples)
    batches.close()
    trainer.close()


def test_a_planted_weight_is_named(diverged, capsys):
    def inf_weight(learner):
        learner.get_submodule(MODULE).weight[0, 0, 0, 0] = float("inf")

    def zero_weight(learner):
        learner.get_submodule(MODULE).weight[0, 0, 0, 0] = 0.0

    record = with_checkpoint(diverged, inf_weight)
    culprit = replay(record).culprit
    assert (culprit.module, culprit.kind, culprit.inputs, culprit.weights) == (MODULE, "Conv2d", True, False)
    assert culprit.rows == tuple(range(16)) and 0 < culprit.bad < culprit.values
    cli(["replay", str(record)])
    out = capsys.readouterr().out
    assert f"first    {MODULE} (Conv2d)" in out and "step-000000001.pt" in out
    assert out.count(".jpg)") == 8 and "and 8 more, all with NaN/Inf; the ids of all are in the record" in out
    healthy = replay(with_checkpoint(diverged, zero_weight))
    assert healthy.culprit is None and healthy.before == 0


def test_a_planted_pixel_is_named_with_its_sample(diverged, monkeypatch):
    make_batch = replay_module.make_batch

    def planted(*arguments):
        batch = make_batch(*arguments)
        batch.views.x_VBCHW[0, 3, 1, 5, 5] = float("nan")
        return batch

    monkeypatch.setattr(replay_module, "make_batch", planted)
    found = replay(diverged)
    assert [bad for *_, bad in found.views] == [1, 0]
    assert (found.culprit.module, found.culprit.inputs, found.culprit.rows) == ("method.backbone.conv1", False, (3,))
    marked = [line for line in str(found).splitlines() if line.endswith("<- NaN/Inf here")]
    assert len(marked) == 1 and found.samples[3][1] in marked[0]
    culprit, samples = found.culprit, found.samples
    for rows, expected in ((range(16), "8 more, all with"), (range(3, 13), "8 more, 2 of them with"), ((), "8 more;")):
        text = str(dataclasses.replace(found, culprit=dataclasses.replace(culprit, rows=tuple(rows))))
        assert f"and {expected}" in text and text.count("sample   ") == 8
    assert "more" not in str(dataclasses.replace(found, samples=samples[:8]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "pass the not-finite.json"),
        ('{"step": 2, "rank": 0, "epoch": 0, "sample_ids": []}', "are not numbers"),
        ('{"step": 2, "rank": 0, "epoch": 0, "sample_ids": [64]}', "has samples 0 to 63, not 64"),
    ],
)
def test_what_is_no_record_is_refused(diverged, text, message):
    (diverged.parent / "other.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        replay(diverged.parent / "other.json")
    (diverged.parent / "other.json").unlink()
