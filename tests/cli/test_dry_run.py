"""`--dry-run`: prints the plan of a run and writes no files."""

import json
import shutil
from types import SimpleNamespace

import pytest

from fastaugself import Pretrain, ViewPolicy
from fastaugself.cli.pretrain import main
from fastaugself.config.serialize import to_dict

SMALL = ["--view.size", "32", "--augment.blur-kernel", "5", "--backbone.name", "resnet18", "--backbone.width", "8",
         "--method.queue", "64", "--batch-size", "8", "--device", "cpu"]  # fmt: skip


def dry(arguments, capsys):
    code = main(Pretrain, {}, [*SMALL, "--dry-run", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_plan_is_printed_and_no_file_is_written(beton, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, _ = dry(["--data.train", beton, "--epochs", "10", "--run", "runs/new"], capsys)
    assert code == 0 and list(tmp_path.iterdir()) == []
    config, about = out.split("\n\nphotos ")
    expected = to_dict(Pretrain(view=ViewPolicy(size=32)))
    assert json.loads(config)["view"] == expected["view"] and json.loads(config)["epochs"] == 10
    assert "steps: 10 epochs of " in about and "learning rate 0.0009375 after" in about  # 0.03 x 8 / 256
    for line in ("model     resnet18", "time      about ", "memory    ", "disk      "):
        assert line in about


def test_a_folder_is_counted_and_not_written(photo_folder, capsys):
    before = sorted(photo_folder.parent.iterdir())
    code, out, _ = dry(["--data.train", photo_folder], capsys)
    assert code == 0 and "which would be converted to a .beton file" in out
    assert sorted(photo_folder.parent.iterdir()) == before


def test_photos_of_a_folder_that_training_would_not_read_are_named(photo_folder, tmp_path, capsys):
    shutil.copytree(photo_folder, tmp_path / "photos")
    (tmp_path / "photos" / "rocket" / "x.heic").write_bytes(b"?")
    (tmp_path / "photos" / "rocket" / "x.jpg").symlink_to("gone")
    _, out, _ = dry(["--data.train", tmp_path / "photos"], capsys)
    assert "photos    65, of" in out and "1 not read, which may be photos: rocket/x.heic (" in out
    assert "training would refuse 1 of them: " in out and "rocket/x.jpg is a link that leads nowhere" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "no training photos"), (["--data.train", "nowhere.beton"], "nowhere.beton"), (["--epochs", "0"], "--epochs")],
    ids=["no photos", "no file", "no epochs"],
)
def test_options_that_training_refuses_are_refused(arguments, message, capsys):
    code, _, error = dry(arguments, capsys)
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_plan_with_a_fault_prints_it_and_exits_with_1(beton, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    code, out, _ = dry(["--data.train", beton], capsys)
    assert code == 1 and "fault     " in out


def test_a_second_view_copies_the_first_except_for_its_own_options(beton, capsys):
    options = ["--view2.scale", "0.3", "0.9", "--view.gray", "0", "--view2.hue=0.3", "--data.train", beton]
    code, out, _ = dry(options, capsys)
    config = json.loads(out.split("\n\nphotos ")[0])
    assert code == 0 and (config["view"]["size"], config["view"]["gray"], config["view"]["hue"]) == (32, 0, 0.1)
    assert config["view2"] == {**config["view"], "hue": 0.3, "scale": [0.3, 0.9]}


def test_photos_that_share_parameters_are_timed_in_whole_chunks(beton, capsys):
    care = ["--method.queue", "48", "--batch-size", "48", "--care.weight", "0.01", "--care.chunk", "24"]
    code, out, _ = dry(["--data.train", beton, *care], capsys)
    assert code == 0 and "timed on 24 photos" in out and '"chunk": 24' in out
