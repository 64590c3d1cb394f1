"""The README is correct: its Python runs, its commands and links exist, its picture is current."""

import io
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastaugself import Backbone
from fastaugself.aware import AWARE, CONDITIONS
from fastaugself.cli.main import main as cli
from fastaugself.cli.pretrain import option_names, parse, with_objectives
from fastaugself.cli.recipe_file import find_recipe, open_recipe
from fastaugself.config.serialize import to_dict
from fastaugself.evaluation.cli import COMMANDS
from fastaugself.evaluation.datasets import readers
from fastaugself.methods import METHODS
from fastaugself.models.build import build_backbone
from fastaugself.views.command import write_views

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
OTHER_COMMANDS = ("source", "cd")


def commands():
    """All commands in shell blocks, and the commands of this project in the text, split into words."""
    shell = "\n".join(text for language, text in BLOCKS if language == "bash").replace("\\\n", " ")
    lines = [part for line in shell.splitlines() for part in line.split("&&")]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    ours = re.compile(r"(make|fastaugself|python|torchrun|pip) ")
    lines += [code for code in re.findall(r"`([^`]+)`", prose) if ours.match(code)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def ids(values):
    return [" ".join(words)[:60] for words in values]


# --- code -------------------------------------------------------------------------------------------------------------


def test_every_block_of_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained, kernels = {}, {}
    exec(compile(PYTHON[0], "README.md", "exec"), trained)
    assert trained["run"].step == 16 and trained["encoder"].num_features == 256
    assert trained["run"].evaluations()[-1]["step"] == 16 and len(trained["loader"]) == 64
    exec(compile(PYTHON[1], "README.md", "exec"), kernels)
    assert kernels["params"].shape == (2, 8, 16) and kernels["views"].shape == (2, 8, 3, 224, 224)
    assert kernels["targets"].crop_B4.shape == (8, 4)


def test_the_numbers_of_methods_are_those_that_there_are():
    (base,) = re.findall(r"^\| base methods \|.*\| (\d+) \|$", README, re.MULTILINE)
    (aware,) = re.findall(r"^\| methods that learn from the parameters \|.*\| (\d+) \|$", README, re.MULTILINE)
    own = [options for options in METHODS.values() if options.__module__.startswith("fastaugself.")]
    others = [options for options in AWARE.values() if options.__module__.startswith("fastaugself.")]
    assert (int(base), int(aware)) == (len(own), len(others) + len(CONDITIONS))  # other tests register more


def test_the_counts_of_protocols_and_data_sets_are_right():
    (protocols,) = re.findall(r"\[(\d+)\sprotocols\]", README)
    (sets,) = re.findall(r"(\d+) data sets by name", README)
    assert int(protocols) == len(COMMANDS.keys() - {"suite", "datasets"}) and int(sets) == len(
        readers().keys() - {"folders", "beton"}
    )


@pytest.mark.usefixtures("torchvision")
def test_the_page_it_points_to_loads_an_export_into_torchvision(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    page = (ROOT / "docs" / "how-to" / "other-trainers.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"^```py\n(.*?)^```", page, re.M | re.S) if "torchvision" in block)
    backbone, _ = build_backbone(Backbone(name="resnet18"))
    export = tmp_path / "runs" / "mine" / "export"  # as written by a run
    export.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in backbone.state_dict().items()}, export / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, page, "exec"), scope)
    model, x = scope["model"].eval(), torch.randn(2, 3, 64, 64)
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(model(x), backbone.eval()(x))


def test_there_are_python_blocks_and_commands_to_check():
    assert len(PYTHON) == 2 and len(commands()) >= 10


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", commands(), ids=ids(commands()))
def test_every_command_exists_with_its_options(words, capsys, monkeypatch):
    if words[0] in OTHER_COMMANDS:
        return
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets or re.fullmatch(r"[A-Z]+=.*", word) for word in words[1:])
    elif words[0] == "pip":
        assert words[1:] == ["install", "."]
    elif words[0] == "fastaugself":
        if words[1] == "pretrain":
            find_recipe(words[2])
            return
        command = words[1:3] if words[1] == "eval" else words[1:2]
        helped = help_of(*command, capsys=capsys)
        for word in words[2:]:
            if word.startswith("--"):
                option = word.split("=")[0]
                assert re.search(rf"{re.escape(option)}\b", helped), f"{option} is not in the help of {command}"
    else:
        (script,) = (word for word in words if word.startswith("recipes/"))
        default, presets, _ = open_recipe(ROOT / script)
        parse(default, presets, words[words.index(script) + 1 :])


def help_of(*command, capsys):
    with pytest.raises(SystemExit) as end:
        cli([*command, "--help"])
    assert end.value.code in (0, None)
    return capsys.readouterr().out


def test_every_option_named_in_the_text_exists(capsys):
    default, presets, _ = open_recipe(ROOT / "recipes" / "imagenet_moco_augself.py")
    known = {
        *option_names(to_dict(with_objectives(default()))),
        "--preset",
        "--from",
        "--dry-run",
        "--print-config",
        "--help",
    }
    known |= {"--run-dir", "--nproc-per-node"}
    helped = "".join(help_of(name, capsys=capsys) for name in ("write", "info", "views", "export", "doctor"))
    known |= set(re.findall(r"--[a-z-]+", helped))
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z]", prose))
    assert named - known == set()
    assert presets.keys() == {"demo", "shuffle"}


# --- links and pictures -----------------------------------------------------------------------------------------------


def test_every_relative_link_points_to_a_file():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if not t.startswith("http")]
    assert targets and all((ROOT / target).exists() for target in targets)


def test_every_reference_is_defined():
    used = set(re.findall(r"\[([^\]]+)\](?![\(:\]])", re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)))
    defined = set(re.findall(r"^\[([^\]]+)\]: http", README, re.MULTILINE))
    assert defined <= used


def test_the_picture_is_what_its_command_draws(tmp_path):
    skimage = pytest.importorskip("skimage")
    named = re.search(r"fastaugself views astronaut\.png --out (docs/views\.(?:png|webp)) --seed (\d+)", README)
    photo = Path(skimage.__file__).parent / "data" / "astronaut.png"
    drawn = write_views(photo, tmp_path / Path(named[1]).name, seed=int(named[2])).read_bytes()
    new, old = (Image.open(io.BytesIO(data)).convert("RGB") for data in (drawn, (ROOT / named[1]).read_bytes()))
    assert new.size == old.size
    difference = np.abs(np.asarray(new, dtype=int) - np.asarray(old, dtype=int))
    assert difference.mean() < 1.0  # Pillow versions place letters slightly differently


def test_it_can_be_read_in_one_sitting_and_names_no_machine():
    assert len(README.splitlines()) <= 200
    assert not re.search(r"/(?:home|root|work|tmp)/", README)
    assert sys.executable not in README
