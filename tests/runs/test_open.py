"""Opening a run: the newest readable checkpoint, and the errors where there is none."""

import json
import logging

import pytest
import torch

from fastaugself import AugSelf, Backbone, MoCo, Pretrain, Supervised, ViewPolicy
from fastaugself.config.serialize import to_dict
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.layers import load_projector
from fastaugself.export.backbone import export_run
from fastaugself.runs import checkpoint
from fastaugself.runs.build import build_learner
from fastaugself.runs.open import load_backbone, load_learner


def saved_run(folder, steps=(3, 5), num_classes=0, **changes):
    """A run folder whose checkpoint of each step is filled with the step's number."""
    options = {"batch_size": 8, "method": MoCo(queue=32, dim=8), "augself": AugSelf(hidden=8), **changes}
    config = Pretrain(view=ViewPolicy.moco_v2(16), backbone=Backbone(name="resnet18", width=4), run=folder, **options)
    learner = build_learner(config, num_classes=num_classes)
    for step in steps:
        for value in learner.parameters():
            value.data.fill_(step)
        state = {"samples": 9, "learner": learner.state_dict()}
        checkpoint.save(folder / "checkpoints", step, state, to_dict(config), keep=9)
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    return config


def damage(folder, step):
    path = folder / "checkpoints" / f"step-{step:09d}.pt"
    path.write_bytes(path.read_bytes()[:-500])


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging.getLogger("fastaugself"), "warning", lambda text, *values: lines.append(text % values))
    return lines


def filled_with(module):
    return {float(value) for parameter in module.parameters() for value in parameter.detach().unique()}


def test_the_newest_checkpoint_is_opened(tmp_path, warnings):
    config = saved_run(tmp_path)
    opened = load_learner(tmp_path)
    assert opened.config == config and (opened.step, opened.samples) == (5, 9)
    assert filled_with(opened.learner) == {5.0}
    assert filled_with(load_backbone(tmp_path).backbone) == {5.0}
    assert warnings == []


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_warning(tmp_path, warnings):
    saved_run(tmp_path / "run")
    damage(tmp_path / "run", 5)
    opened = load_learner(tmp_path / "run")
    assert opened.step == 3 and filled_with(opened.learner) == {3.0}
    assert len(warnings) == 1
    assert "step-000000005.pt cannot be read" in warnings[0] and "trying the one before" in warnings[0]

    encoder = load_encoder(str(tmp_path / "run"))
    projector = load_projector(encoder, torch.device("cpu")).__closure__
    assert filled_with(encoder.module) == {3.0}
    assert {3.0} in [filled_with(cell.cell_contents) for cell in projector if hasattr(cell.cell_contents, "parameters")]
    assert export_run(tmp_path / "run", tmp_path / "export").exists()
    assert filled_with(load_encoder(str(tmp_path / "export")).module) == {3.0}
    assert len(warnings) == 4


@pytest.mark.parametrize("use", [load_learner, load_backbone, export_run, lambda run: load_encoder(str(run))])
def test_a_run_without_a_readable_checkpoint_is_refused(use, tmp_path):
    saved_run(tmp_path)
    damage(tmp_path, 3)
    damage(tmp_path, 5)
    with pytest.raises(
        RunError, match=r"no checkpoint in .*checkpoints can be read \(step-000000005\.pt: .*copy the run"
    ):
        use(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="checkpoints holds no checkpoint yet: train it first"):
        use(tmp_path)
    with pytest.raises(UsageError, match="no such f"):
        use(tmp_path / "nowhere")


def test_weights_that_do_not_fit_the_configuration_are_named(tmp_path):
    saved_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone"]["width"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        RunError, match=r"step-000000005\.pt does not fit the model that its config\.json describes: size"
    ):
        load_backbone(tmp_path)


def test_a_supervised_run_is_opened_with_its_own_number_of_classes_and_exported(tmp_path):
    saved_run(tmp_path, num_classes=7, method=Supervised())
    assert load_learner(tmp_path).learner.method.classifier.out_features == 7
    assert export_run(tmp_path).exists()
