"""What a report tells its reader to do: commands that can be copied, and that work."""

import html
import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_reports import config, written
from tiny_runs import train

from fastaugself import AugSelf, Data
from fastaugself.cli.pretrain import parse
from fastaugself.cli.recipe_file import open_recipe
from fastaugself.report import next_steps as next_steps_module
from fastaugself.report.text import caveats

pytestmark = pytest.mark.usefixtures("fewer_pairs")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "commands", [next_steps_module.OWN_PHOTOS, next_steps_module.IMAGENET], ids=["own", "imagenet"]
)
def test_the_commands_it_gives_are_accepted(commands):
    lines = [shlex.split(line, comments=True) for line in commands.replace("\\\n", " ").splitlines()]
    script = "recipes/imagenet_moco_augself.py"
    recipe, presets, _ = open_recipe(ROOT / script)
    runs = [line[line.index(script) + 1 :] for line in lines if script in line]
    assert len(runs) == 1
    assert parse(recipe, presets, runs[0]).data.train is not None


def commands_of(page, heading):
    """The command lines in the block below a heading, as words; continued lines are joined."""
    block = html.unescape(re.search(rf"<h3>{heading}</h3>.*?<pre><code>(.*?)</code>", page, re.DOTALL)[1])
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def test_the_report_says_how_to_evaluate_and_compare_and_the_commands_work(beton, tmp_path, monkeypatch, capsys):
    """A run with an odd name: evaluated on its photos, trained without objectives, and compared on one page."""
    import fastaugself.cli.main as command_line

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("FASTAUGSELF_CACHE", str(tmp_path / "cache"))
    run = Path("my runs/first")
    page = written(train(config(beton, run, max_steps=2)))
    (evaluate,) = commands_of(page, "Evaluate the features")
    assert evaluate[:3] == ["fastaugself", "eval", "knn"] and str(beton) in evaluate
    command_line.main([*evaluate[1:], "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "first  " in printed and "random-first" in printed
    pretrain, report_both = commands_of(page, "Compare with another run")
    assert pretrain[:3] == ["fastaugself", "pretrain", "imagenet_moco_augself"]
    assert command_line.pretrain_command(pretrain[2:]) == 0
    baseline = json.loads(Path("my runs/first-baseline/config.json").read_text())
    assert (baseline["augself"]["crop"], baseline["augself"]["color"], baseline["max_steps"]) == (0, 0, 2)
    command_line.main(report_both[1:])
    assert "2 runs compared" in Path("comparison.html").read_text()
    assert "--data.val" not in page.split('id="next"')[1].split("Configuration and")[0]


def test_data_val_is_named_where_there_was_none(beton, tmp_path):
    plain = Data(train=beton, source="native", workers=1)
    page = written(train(config(beton, tmp_path / "run", data=plain, max_steps=1)))
    (command,) = commands_of(page, "Check the features during training")
    assert command[command.index("--data.val") + 1] == "path/to/val"
    options = command[command.index("--from") :]
    options[options.index("path/to/val")] = str(beton)
    recipe, presets, _ = open_recipe(ROOT / "recipes/imagenet_moco_augself.py")
    assert parse(recipe, presets, options).data.val == beton


def test_validation_photos_beside_the_training_photos_are_proposed(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    made = config(tmp_path / "train", tmp_path / "run", data=Data(train=tmp_path / "train"))
    assert str(tmp_path / "val") in next_steps_module.validate(made, tmp_path / "run")
    identity = {"data": {"train": str(tmp_path / "train"), "val": str(tmp_path / "val")}}
    assert next_steps_module.evaluated_photos(made, identity) == tmp_path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"augself": AugSelf(crop=0.5, color=0, flip=0.2)}, ["--augself.crop", "0", "--augself.flip", "0"]),
        ({"augself": AugSelf(crop=0, color=0)}, []),
        ({"augself": AugSelf(crop=1, color=0, only=True)}, []),
    ],
    ids=["two heads", "none", "only"],
)
def test_the_baseline_of_a_run_is_without_its_objectives(beton, tmp_path, changes, expected):
    made = config(beton, tmp_path / "run", **changes)
    assert next_steps_module.baseline_options(made) == expected
    said = next_steps_module.compare(made, tmp_path / "run")
    assert ("--seed 1" in said) == (not expected)
    text = caveats(made, is_demo=False, untrained_knn=None)
    assert f"<code>{' '.join(expected)}</code>" in text if expected else "<code>" not in text
