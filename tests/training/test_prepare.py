"""Folders of photos as --data.train: a run inside them, and runs that would be mixed with the photos."""

import shutil
from pathlib import Path

import pytest
from tiny_runs import ALONE, config, saved_steps

from fastaugself import Data
from fastaugself.data.dataset import Dataset
from fastaugself.errors import UsageError
from fastaugself.pretraining import run_pretraining


@pytest.fixture
def photos(photo_folder, tmp_path):
    shutil.copytree(photo_folder, tmp_path / "photos")
    return tmp_path / "photos"


def test_the_same_command_inside_the_photos_resumes(photos, monkeypatch):
    monkeypatch.chdir(photos)
    here = photos.relative_to(photos)
    for steps in (1, 3):
        data = Data(train=here, val=here, source="native", workers=1)
        run_pretraining(config(None, here / "runs" / "pretrain", data=data, max_steps=steps), ALONE)
        assert saved_steps(here / "runs" / "pretrain")[-1] == steps
        with Dataset(photos.parent / "photos.beton") as written:
            assert written.classes == ["astronaut", "chelsea", "coffee", "rocket"]


@pytest.mark.parametrize(
    ("run", "message"),
    [(".", r"--run .*photos is the folder of photos of --data\.train; pass --run runs/photos$"),
     ("coffee", r"--run .*coffee holds photos of --data\.train .*photos; pass --run runs/coffee$")],
)  # fmt: skip
def test_a_run_among_the_photos_is_refused(run, message, photos, monkeypatch):
    before = sorted(photos.rglob("*"))
    data = Data(train=photos, source="native", workers=1)
    with pytest.raises(UsageError, match=message):
        run_pretraining(config(None, photos / run, data=data, max_steps=1), ALONE)
    assert sorted(photos.rglob("*")) == before
    monkeypatch.chdir(photos)
    remedy = Path("runs") / (photos / run).resolve().name
    run_pretraining(config(None, remedy, data=data, max_steps=1), ALONE)
