"""docs/new-method.md keeps its word: the method in it has options, trains, takes CASSLE, and is reported on."""

import dataclasses
import json
import math
import re
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fastaugself import CASSLE, Backbone, Data, Log, Pretrain
from fastaugself.cli.main import main as cli
from fastaugself.cli.pretrain import main, parse
from fastaugself.config.serialize import from_dict, to_dict
from fastaugself.errors import UsageError
from fastaugself.methods import METHODS, register

DOCUMENT_PATH = Path(__file__).parents[2] / "docs" / "new-method.md"
DOCUMENT = DOCUMENT_PATH.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example():
    """The document's file, as a module."""
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) < 100, "about a hundred lines, recipe included"
    module = types.ModuleType("uniformity_example")
    sys.modules[module.__name__] = module  # where dataclasses look up annotations
    exec(compile(code, "docs/new-method.md", "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__], METHODS["uniformity"]


def test_options_are_on_the_command_line_and_in_config_json(example):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = parse(example.recipe, {}, ["--method.dim", "32", "--method.weight", "0.5"])
    assert config.method == example.Uniformity(dim=32, weight=0.5)
    assert to_dict(config)["method"]["kind"] == "uniformity"
    assert from_dict(Pretrain, json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(UsageError, match=r"--method.weight must be above 0 or the features collapse, got 0.0"):
        parse(example.recipe, {}, ["--method.weight", "0"])
    with pytest.raises(UsageError, match="Alignment and uniformity takes no local crops"):
        parse(example.recipe, {}, ["--num-local-crops", "2"])


def test_loss_is_the_papers(example):
    z = F.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    expected = math.log(sum(math.exp(-2 * float((z[i] - z[j]).square().sum())) for i, j in pairs) / len(pairs))
    assert example.uniformity(z).item() == pytest.approx(expected)


@pytest.fixture(scope="module")
def trained(example, beton, tmp_path_factory):
    """The folder of a run of three steps."""
    run = tmp_path_factory.mktemp("runs") / "run"

    def small():
        config = example.recipe()
        return dataclasses.replace(
            config,
            data=Data(train=beton, source="native", workers=1),
            view=dataclasses.replace(config.view, size=24),
            backbone=Backbone(name="resnet18", width=8, stem="small"),
            augself=dataclasses.replace(config.augself, hidden=16),
            log=Log(every=1, tensorboard=False),
            cassle=CASSLE(conditioning="concat", depth=2, width=8),
            run=run,
            epochs=1,
            batch_size=16,
        )

    assert main(small, {}, ["--max-steps", "3", "--method.dim", "16"]) == 0
    return run


def test_it_trains_reports_and_exports(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and {"loss", "loss_ssl", "loss_crop", "loss_color"} <= lines[0].keys()
    for line in lines:
        assert line["loss_ssl"] == pytest.approx(line["alignment"] + line["uniformity"], rel=1e-5)
    report = (trained / "report.html").read_text()
    assert "Alignment and uniformity" in report and ">alignment" in report.lower() and ">uniformity" in report.lower()
    assert (trained / "export" / "model.safetensors").exists()


def test_commands_open_its_runs_once_they_are_given_its_file(trained, tmp_path, monkeypatch, capsys):
    """`fastaugself` knows nothing of the file of a recipe, and runs none that it was not given."""
    file, record = tmp_path / "uniformity_file.py", trained / "not-finite.json"
    (tmp_path / "uniformity_neighbour.py").touch()
    file.write_text(
        "import uniformity_neighbour\n" + "".join(re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.M | re.S))
    )
    record.write_text(json.dumps({"step": 2, "rank": 0, "epoch": 0, "sample_ids": list(range(8))}))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(METHODS, "uniformity")
    commands = (["replay", str(record)], ["export", str(trained)], ["report", str(trained)])
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli(command)
        error = capsys.readouterr().err
        assert end.value.code == 2 and "unknown method uniformity" in error and "pass --recipe with the file" in error
    for command in commands:
        cli([*command, "--recipe", str(file)])
    assert "all outputs of all modules are finite" in capsys.readouterr().out
    for words, message in (
        (["--recipe"], "needs a recipe's .py file, got 'nothing'"),
        ([f"--recipe={DOCUMENT_PATH}"], "needs a recipe's .py file"),
    ):
        with pytest.raises(SystemExit):
            cli([*commands[0], *words])
        assert message in capsys.readouterr().err
    file.write_text("import nothing_of_this_name")
    with pytest.raises(SystemExit):
        cli([*commands[0], f"--recipe={file}"])
    assert "cannot be read (ModuleNotFoundError: No module named 'nothing_of_this_name')" in capsys.readouterr().err
    del sys.modules["recipe_uniformity_file"], sys.modules["uniformity_neighbour"]


def test_a_name_belongs_to_one_method(example):
    with pytest.raises(ValueError, match="moco belongs to MoCo"):
        register("moco")(example.Uniformity)
    assert register("uniformity")(example.Uniformity) is example.Uniformity  # a recipe that is imported twice
