"""A run, an export and photos for the tests of `fastaugself eval`."""

import json

import pytest
from tiny_eval import call, tiny

from fastaugself.config.serialize import to_dict
from fastaugself.export.backbone import export_backbone
from fastaugself.runs import checkpoint
from fastaugself.runs.build import build_learner


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a checkpoint and an export of untrained weights."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    learner = build_learner(tiny())
    checkpoint.save(folder / "checkpoints", 3, {"learner": learner.state_dict()}, to_dict(tiny()), keep=1)
    (folder / "config.json").write_text(json.dumps(to_dict(tiny())))
    export_backbone(learner, tiny(), folder / "export", step=3)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An export of other weights."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    export_backbone(build_learner(tiny(seed=1)), tiny(seed=1), folder / "export", step=0)
    return folder / "export"


@pytest.fixture
def photos(photo_folder, tmp_path):
    """Train and test folders of two classes, eight and four photos each, in a separate folder."""
    for split, numbers in (("train", range(8)), ("test", range(8, 12))):
        for name in ("chelsea", "coffee"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in numbers:
                data = (photo_folder / name / f"{i:02d}.jpg").read_bytes()
                (tmp_path / "photos" / split / name / f"{i}.jpg").write_bytes(data)
    return tmp_path / "photos"


@pytest.fixture
def train(run, photos, tmp_path):
    """Calls a command that trains on the tiny run and the photos, three epochs of two steps; returns its exit code."""

    def command(name, *options, model=run, data=photos):
        common = ("--epochs", 3, "--train-batch", 8, "--out", tmp_path / "out", "--device", "cpu")
        return call(name, model, "--data", data, *common, *options)

    return command
