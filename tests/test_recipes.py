"""Every recipe gives a complete configuration whose method takes steps on real photos."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest
import torch

from fastaugself import Augment, Backbone, Cassle, Data, Log, Pretrain
from fastaugself.config import from_dict, to_dict
from fastaugself.training.distributed import World
from fastaugself.training.trainer import Trainer

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.py"))
NARROW = {"dim": 32, "hidden": 32, "prototypes": 12, "predictor_hidden": 16, "freeze_steps": 1, "queue": 32}


def recipe(path):
    return runpy.run_path(str(path))[path.stem]


def tiny(config, beton, run, **changes):
    """The recipe at the size of a test: its method, views, optimizer and heads, on 64 small photos."""
    fields = {f.name for f in dataclasses.fields(config.method)}
    method = dataclasses.replace(config.method, **{k: v for k, v in NARROW.items() if k in fields})
    return dataclasses.replace(
        config,
        data=Data(train=beton, source="native", workers=1),
        view=dataclasses.replace(config.view, size=24),
        view2=config.view2 and dataclasses.replace(config.view2, size=24),
        small_view=dataclasses.replace(config.small_view, size=16),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name="resnet18", width=8, stem="small"),
        method=method,
        augself=dataclasses.replace(config.augself, hidden=16),
        log=Log(every=1, tensorboard=False),
        run=run,
        epochs=1,
        batch_size=16,
        max_steps=2,
        **changes,
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_documented_and_survives_its_file(path):
    config = recipe(path)()
    assert from_dict(Pretrain, json.loads(json.dumps(to_dict(config)))) == config
    text = path.read_text()
    assert (f"recipes/{path.name}" in text and "No run of" in text) or "run of" in text
    assert config.run == Path("runs") / path.stem


@pytest.mark.parametrize("conditioned", [False, True], ids=["augself", "augself+cassle"])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_takes_steps_on_real_photos(path, conditioned, beton, tmp_path):
    config = recipe(path)()
    if conditioned and "supervised" in path.stem:
        pytest.skip("a supervised method has no projector to condition")
    cassle = Cassle(inject="concat", depth=2, width=8) if conditioned else Cassle()
    trainer = Trainer(tiny(config, beton, tmp_path, cassle=cassle), World(0, 1, torch.device("cpu")))
    try:
        trainer.fit()
    finally:
        trainer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all({"loss", "loss_ssl", "loss_crop", "loss_color"} <= line.keys() for line in lines)
