"""What this package writes into a folder of photos becomes neither a class nor a photo."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fastaugself.data.inputs.folder import list_photos
from fastaugself.errors import UsageError
from fastaugself.files import check_outputs
from fastaugself.views.command import write_views


@pytest.fixture
def folder(tmp_path):
    for name in ("a/0.jpg", "a/1.png", "b/0.jpg", "z/1.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8)).save(path)
    (tmp_path / "photos" / "empty").mkdir()
    return tmp_path / "photos"


RUN = ("config.json", "checkpoints/step-000000001.pt", "report.html", "data/train.beton", "profile/0.json")


@pytest.mark.parametrize(
    "files",
    [
        [f"runs/pretrain/{name}" for name in RUN],
        [f"run/{name}" for name in RUN],
        ["runs/pretrain/run.lock"],
        [f"runs/{i}/deep/{name}" for i in range(3) for name in RUN],
        [f"a/runs/{name}" for name in RUN],
        [f"runs/x/{name}" for name in (*RUN, "export/views/picture.png")],
        ["results/eval/results.csv", "results/eval/results.md", "results/eval/knn-photos-a-1.json"],
        ["export/config.json", "export/model.safetensors", "export/README.md"],
        ["out/photos.beton", "out/photos.beton.json", "out/photos.beton.manifest.jsonl"],
        ["out/photos.beton.partial", "notes.txt"],
    ],
    ids=lambda files: files[0],
)
def test_outputs_are_no_class_and_change_nothing(files, folder):
    before = list_photos(folder)
    assert before.classes == ["a", "b", "empty", "z"]
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((folder / "a" / "1.png").read_bytes() if name.endswith(".png") else b"1")
    after = list_photos(folder)
    assert (after.classes, after.files, after.labels) == (before.classes, before.files, before.labels)
    assert after.fingerprint == before.fingerprint


def test_pictures_beside_a_run_are_named(folder):
    for name in ("runs/x/config.json", "runs/x/checkpoints/1.pt", "runs/x/views.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "a" / "1.png", folder / name)
    found = list_photos(folder)
    assert found.classes == ["a", "b", "empty", "z"]
    assert found.left_out == ["runs/x (a run, an export or results)"]


def test_a_folder_of_photos_with_a_run_below_it_stays_a_class(folder):
    (folder / "runs" / "x" / "checkpoints").mkdir(parents=True)
    (folder / "runs" / "x" / "config.json").write_text("{}")
    shutil.copy(folder / "a" / "1.png", folder / "runs" / "1.png")
    assert list_photos(folder).classes == ["a", "b", "empty", "runs", "z"]


@pytest.mark.parametrize("out", ["views.png", "a/views.webp", "new/views.html", "new/views.png"])
def test_views_are_not_drawn_among_the_photos(out, folder, monkeypatch):
    before = list_photos(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=r"--out .* is in the folder of photos .*; pass --out \.\./views") as refused:
        write_views(Path(), Path(out), count=1, size=16)
    assert list_photos(folder) == before
    remedy = Path(str(refused.value).rsplit("--out ", 1)[1])
    assert write_views(Path(), remedy, count=1, size=16).exists()
    write_views(Path("a/0.jpg"), Path("page.html"), count=1, size=16)
    write_views(Path(), Path("page.html"), count=1, size=16)
    assert list_photos(folder).fingerprint == before.fingerprint


def test_the_check_of_an_output_leaves_no_folder(folder):
    check_outputs(folder / "results" / "eval" / "results.csv", folder / "b" / "results.csv")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "empty", "z"]
