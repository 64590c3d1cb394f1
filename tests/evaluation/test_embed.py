"""`fastaugself features`: features of all photos with what identifies them, in one .npz or .parquet file."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastaugself.cli.main import main as cli
from fastaugself.data.inputs.convert import write_beton
from fastaugself.evaluation import embed
from fastaugself.evaluation.encoders import load_encoder

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTAUGSELF_CACHE", str(tmp_path / "cache"))


def call(*arguments):
    """The exit code of `fastaugself features` with these arguments."""
    try:
        cli(["features", *map(str, arguments), "--device", "cpu"])
    except SystemExit as end:
        return 0 if end.code is None else end.code
    return 0


def by_hand(run, paths, size=32):
    """Features in plain PyTorch: Pillow resizes and crops, the module is called in batches of one."""
    encoder = load_encoder(str(run), device="cpu")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    found = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        scale = size / min(image.size)
        new = [size if side == min(image.size) else int(scale * side) for side in image.size]
        image = image.resize(new, Image.Resampling.BICUBIC)
        left, top = (round((side - size) / 2) for side in new)
        pixels = np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)
        with torch.no_grad():
            found.append(encoder.module((torch.tensor(pixels) / 255 - mean)[None] / std)[0].numpy())
    return np.stack(found)


def test_the_features_are_the_encoders_on_the_same_photos(run, photos, tmp_path, capsys):
    (tmp_path / "odd").mkdir()
    for i, shape in enumerate([(40, 33, 3), (32, 32, 3), (97, 41, 3)]):
        pixels = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "odd" / f"{i}.png")
    out = tmp_path / "new" / "f.npz"
    assert call(run, tmp_path / "odd", "--out", out, "--batch-size", 2, "--workers", 1) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with np.load(out) as found:  # no pickles
        assert found["features"].dtype == np.float32 and found["features"].shape == (3, 64)
        expected = by_hand(run, [tmp_path / "odd" / f"{i}.png" for i in range(3)])
        np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-5)
        assert found["labels"].tolist() == [-1, -1, -1] and found["ids"].tolist() == [0, 1, 2]
        assert found["names"].tolist() == ["0.png", "1.png", "2.png"] and found["classes"].shape == (0,)
        assert json.loads(str(found["about"]))["digest"] == load_encoder(str(run)).digest
        assert "splits" not in found
    assert list(out.parent.iterdir()) == [out]


def test_labels_classes_names_and_splits_of_class_folders(run, photos, tmp_path):
    out = tmp_path / "f.npz"
    assert call(run, photos, "--out", out) == 0
    with np.load(out) as found:
        names, labels = found["names"].tolist(), found["labels"].tolist()
        assert sorted(names) == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.jpg"))
        for name, label, split in zip(names, labels, found["splits"].tolist(), strict=True):
            assert name.split("/")[:2] == [split, found["classes"][label]]
        np.testing.assert_allclose(found["features"], by_hand(run, [photos / n for n in names]), rtol=1e-4, atol=1e-5)
    assert call(run, photos, "--out", out, "--split", "test", "--overwrite") == 0
    with np.load(out) as found:
        assert len(found["features"]) == 8 and set(found["splits"].tolist()) == {"test"}


def test_parquet_holds_the_same_as_npz(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "ROWS", 5)  # several pieces, the last one smaller
    a, b = tmp_path / "f.npz", tmp_path / "f.parquet"
    assert call(run, photos, "--out", a) == 0 and call(run, photos, "--out", b) == 0
    table = parquet.read_table(b)
    with np.load(a) as found:
        features = np.array(table["features"].to_pylist(), np.float32)
        np.testing.assert_array_equal(features, found["features"])
        assert table["label"].to_pylist() == found["labels"].tolist()
        assert table["class"].to_pylist() == found["classes"][found["labels"]].tolist()
        for column, array in (("id", "ids"), ("name", "names"), ("split", "splits")):
            assert table[column].to_pylist() == found[array].tolist()
        assert json.loads(table.schema.metadata[b"fastaugself"]) == json.loads(str(found["about"]))


def test_a_beton_keeps_its_sample_ids_and_names(run, photo_folder, tmp_path):
    beton = tmp_path / "photos.beton"
    write_beton(photo_folder, beton, progress=False)
    out = tmp_path / "f.parquet"
    assert call(run, beton, "--out", out) == 0
    whole = parquet.read_table(out)
    names = [str(p.relative_to(photo_folder)) for p in sorted(photo_folder.rglob("*.jpg"))]
    assert whole["id"].to_pylist() == list(range(64)) and whole["name"].to_pylist() == names
    assert whole["class"].to_pylist() == [name.split("/")[0] for name in names]
    expected = by_hand(run, [photo_folder / name for name in names[:3]])
    np.testing.assert_allclose(np.array(whole["features"].to_pylist())[:3], expected, rtol=1e-4, atol=1e-5)
    assert call(run, beton, "--out", out, "--split", "test", "--overwrite") == 0
    part = parquet.read_table(out).to_pylist()
    rows = whole.to_pylist()
    assert 0 < len(part) < 64
    assert all(row["features"] == rows[row["id"]]["features"] and row["name"] == names[row["id"]] for row in part)


def test_a_beton_without_names_has_no_names(run, photo_folder, tmp_path):
    beton = tmp_path / "photos.beton"
    write_beton(photo_folder, beton, progress=False)
    (tmp_path / "photos.beton.manifest.jsonl").unlink()
    assert call(run, beton, "--out", tmp_path / "f.npz") == 0
    with np.load(tmp_path / "f.npz") as found:
        assert "names" not in found and "splits" not in found and len(found["classes"]) == 4


def test_names_that_are_not_utf8_are_written_escaped(run, photos, tmp_path):
    odd = photos / "train" / "coffee"
    shutil.copy(odd / "0.jpg", str(odd).encode() + b"/caf\xe9.jpg")
    for name in ("f.npz", "f.parquet"):
        assert call(run, photos, "--out", tmp_path / name) == 0
    with np.load(tmp_path / "f.npz") as found:
        assert "train/coffee/caf\\udce9.jpg" in found["names"].tolist()
    assert "train/coffee/caf\\udce9.jpg" in parquet.read_table(tmp_path / "f.parquet")["name"].to_pylist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{tmp}/f.csv"], "must end in .npz or .parquet: pass --out {tmp}/f.npz"),
        (["--out", "{tmp}"], "must end in .npz"),
        (["--out", "{tmp}/dir.npz"], "because it is a folder: pass a file"),
        (["--out", "{tmp}/old.npz"], "old.npz exists: pass --overwrite to replace it"),
        (["--out", "{tmp}/old.npz/f.npz"], "cannot be written"),
        (["--out", "{tmp}/f.npz", "--split", "dev"], "has no split dev: pass --split train or test"),
        (["--out", "{tmp}/f.npz", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--out", "{tmp}/f.npz", "--resize", "16"], "--resize 16 is below the 32 pixels"),
        (["--out", "{tmp}/f.npz", "--dataset", "cifar"], "--dataset cifar is unknown"),
        ([], "--out"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_encoded(
    options, message, run, photos, tmp_path, monkeypatch, capsys
):
    (tmp_path / "dir.npz").mkdir()
    (tmp_path / "old.npz").write_bytes(b"kept")
    monkeypatch.setattr("fastaugself.evaluation.features.Frozen.__call__", lambda *_: 1 / 0)
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    assert call(run, photos, *(option.format(tmp=tmp_path) for option in options)) == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before
    assert (tmp_path / "old.npz").read_bytes() == b"kept"


def test_parquet_without_pyarrow_names_the_package_and_the_other_format(run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embed, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert call(run, photos, "--out", tmp_path / "f.parquet") == 2
    assert f"pip install pyarrow, or pass --out {tmp_path / 'f.npz'}" in capsys.readouterr().err


def test_a_failed_write_keeps_the_old_file(run, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "f.npz"
    assert call(run, photos, "--out", out) == 0
    kept = out.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embed.np.lib.format, "write_array", full)
    assert call(run, photos, "--out", out, "--overwrite") == 1
    assert "cannot be written" in capsys.readouterr().err
    assert out.read_bytes() == kept and not list(tmp_path.glob("*.partial"))


def test_unreadable_photos_are_named(run, photos, tmp_path, capsys):
    (photos / "train" / "coffee" / "broken.jpg").write_bytes(b"\xff\xd8no")
    assert call(run, photos, "--out", tmp_path / "f.npz") == 1
    assert "broken.jpg" in capsys.readouterr().err and not (tmp_path / "f.npz").exists()
