"""docs/new-objective.md keeps its word: its objective has options, trains, learns, and is reported on."""

import dataclasses
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastaugself import Backbone, Data, Log, Optim, Pretrain, list_aware
from fastaugself.aware import AWARE
from fastaugself.cli.pretrain import main, parse
from fastaugself.config.serialize import from_dict, to_dict
from fastaugself.data.inputs.convert import write_beton
from fastaugself.errors import UsageError
from fastaugself.runs.open import load_learner

DOCUMENT = (Path(__file__).parents[2] / "docs" / "new-objective.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example():
    """The document's file, as a module."""
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) < 100
    module = types.ModuleType("position_example")
    sys.modules[module.__name__] = module  # where dataclasses look up annotations
    exec(compile(code, "docs/new-objective.md", "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__], AWARE["position"]


def small(example, beton, run):
    config = example.recipe()
    return dataclasses.replace(
        config,
        data=Data(train=beton, source="native", workers=1),
        view=dataclasses.replace(config.view, size=24),
        backbone=Backbone(name="resnet18", width=8, stem="small"),
        optim=Optim(lr=0.1),
        log=Log(every=1, tensorboard=False),
        run=run,
        epochs=30,
        batch_size=32,
    )


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """Photos whose colours say where in the photo they are: red grows to the right, green downwards."""
    folder = tmp_path_factory.mktemp("gradients")
    (folder / "photos").mkdir()
    y, x = np.mgrid[0:48, 0:64]
    for i in range(64):
        pixels = np.stack([255 * x / 63, 255 * y / 47, np.full(x.shape, 4 * i)], 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / f"{i:02d}.png")
    write_beton(folder / "photos", folder / "photos.beton", progress=False)
    return folder / "photos.beton"


def test_options_are_on_the_command_line_and_in_config_json(example):
    assert "position" in list_aware()
    config = parse(example.recipe, {}, ["--position.hidden", "32", "--position.weight", "0.5"])
    assert config.aware == (example.Position(weight=0.5, hidden=32),) and config.base_loss
    assert to_dict(config)["aware"] == {"position": {"weight": 0.5, "hidden": 32, "only": False}}
    assert from_dict(Pretrain, json.loads(json.dumps(to_dict(config)))) == config
    assert parse(example.recipe, {}, ["--position.weight", "0"]).aware == ()
    assert not parse(example.recipe, {}, ["--position-only"]).base_loss
    for options, message in (
        (["--position.hidden", "0"], r"--position\.hidden must be at least 1, got 0; pass --position\.hidden 256"),
        (
            ["--view.scale", "1", "1"],
            r"--position\.weight 0\.1 needs random crops; pass --view\.scale .*, or --position",
        ),
        (["--position.hiden", "3"], r"--position\.hidden"),
    ):
        with pytest.raises(UsageError, match=message):
            parse(example.recipe, {}, options)


def test_it_trains_learns_resumes_and_reports(example, gradients, tmp_path):
    run = tmp_path / "run"
    arguments = ["--position.weight", "1", "--view.jitter", "0", "--view.gray", "0", "--max-steps"]
    assert main(lambda: small(example, gradients, run), {}, [*arguments, "20"]) == 0
    assert main(lambda: small(example, gradients, run), {}, [*arguments, "60"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 61))
    first, last = lines[0], lines[-10:]
    assert {"loss", "loss_ssl", "loss_position", "position_r2"} <= first.keys() and "loss_crop" not in first
    baseline = json.loads((run / "environment.json").read_text())["baseline_losses"]
    assert baseline == {"position": pytest.approx(1.0, abs=0.05)}  # standardised: the mean predicts with an error of 1
    assert sum(line["loss_position"] for line in last) / 10 < 0.6 and last[-1]["position_r2"] > 0.3
    page = (run / "report.html").read_text()
    assert "SimCLR + absolute crop" in page and "absolute crop loss" in page and "absolute crop r2" in page
    heads = load_learner(run).learner.aware["position"].descriptors
    assert float(heads.scale_n.min()) > 1 and not torch.equal(heads.mean_n, torch.zeros(4))
