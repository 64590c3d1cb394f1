"""The command line: what it prints, how it refuses, and its exit codes."""

import subprocess
import sys

import pytest
import torch

from fastaugself import cli


def call(*arguments):
    """Exit code of the command in this process; output goes to capsys."""
    try:
        cli.main([str(a) for a in arguments])
    except SystemExit as end:
        return 0 if end.code is None else end.code
    return 0


def test_write_then_info_then_views(photo_folder, tmp_path, capsys):
    out = tmp_path / "photos.beton"
    assert call("write", photo_folder, out) == 0
    assert "64 photos, 4 classes" in capsys.readouterr().out
    assert call("info", out) == 0
    assert "4 classes: astronaut, chelsea, coffee, rocket" in capsys.readouterr().out
    assert call("views", out, "--out", tmp_path / "views.png", "--count", "2", "--size", "32") == 0
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")


def test_write_replaces_a_file_only_when_told(photo_folder, tmp_path, capsys):
    out = tmp_path / "photos.beton"
    assert call("write", photo_folder, out) == 0
    before = out.read_bytes()
    assert call("write", photo_folder, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call("write", photo_folder, out, "--overwrite") == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["write", "{tmp}/missing", "{tmp}/x.beton"], 2, "missing"),
        (["write", "{tmp}/empty", "{tmp}/x.beton"], 2, "empty"),
        (["write", "{tmp}/broken", "{tmp}/x.beton"], 1, "cut.jpg"),
        (["info", "{tmp}/text.beton"], 2, "text.beton"),
        (["info", "{tmp}/cut.beton"], 1, "cut.beton"),
        (["views", "{tmp}/missing.jpg"], 2, "missing.jpg"),
        (["export", "{tmp}/empty"], 2, "is not a run folder"),
    ],
    ids=lambda value: " ".join(value).replace("{tmp}/", "") if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_with_its_exit_code(arguments, code, message, beton, photo_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "a").mkdir(parents=True)
    whole = next(photo_folder.rglob("*.jpg")).read_bytes()
    (tmp_path / "broken" / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.beton").write_text("no photos here, only words\n" * 20)
    (tmp_path / "cut.beton").write_bytes(beton.read_bytes()[:-500])
    assert call(*[a.format(tmp=tmp_path) for a in arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not (tmp_path / "x.beton").exists() and not list(tmp_path.glob("*.partial"))


def test_export_of_a_run_equals_what_training_exported(beton, tmp_path):
    import json

    from safetensors.torch import load_file

    from fastaugself import AugSelf, Backbone, Data, Log, MoCo, Pretrain, ViewPolicy
    from fastaugself.config import to_dict
    from fastaugself.export import export_backbone
    from fastaugself.training.distributed import World
    from fastaugself.training.trainer import Trainer

    config = Pretrain(
        data=Data(train=beton, source="native", workers=1),
        view=ViewPolicy.moco_v2(24),
        backbone=Backbone(name="resnet18", width=8),
        method=MoCo(queue=32, dim=16),
        augself=AugSelf(hidden=16),
        log=Log(every=1, tensorboard=False),
        run=tmp_path,
        epochs=1,
        batch_size=32,
    )
    trainer = Trainer(config, World(0, 1, torch.device("cpu")))
    trainer.fit()
    trainer.close()
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    first = load_file(export_backbone(trainer.learner, config, tmp_path / "export", step=trainer.step))
    assert call("export", tmp_path, "--out", tmp_path / "again") == 0
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    backbone = trainer.learner.method.backbone.state_dict()
    assert first.keys() == backbone.keys()


def test_an_unknown_command_is_refused_with_the_known_ones():
    done = subprocess.run([sys.executable, "-m", "fastaugself", "wirte"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "write" in done.stderr
