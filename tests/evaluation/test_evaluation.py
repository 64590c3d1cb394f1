"""The commands of `fastaugself eval` and what they measure: views, layers, fusion, results and errors."""

import csv
import html
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_eval import call

from fastaugself.errors import UsageError
from fastaugself.evaluation import layers, parameters
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.features import Extractor
from fastaugself.evaluation.fusion import Representation, fuse
from fastaugself.evaluation.protocols import Outcome
from fastaugself.evaluation.run import run_protocol
from fastaugself.probes import ridge

# Views


def test_parameter_pairs_hold_the_features_of_both_views_and_their_targets(run, photos):
    encoder, split = load_encoder(str(run)), read_dataset(photos).splits["train"]
    found = parameters.pairs(Extractor(), encoder, split, seed=5)
    assert found.features.x_ND.shape == (16, 128) and found.targets_NT.shape == (16, 10)
    again = parameters.pairs(Extractor(batch_size=3), encoder, split, seed=5)
    torch.testing.assert_close(found.features.x_ND, again.features.x_ND, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.targets_NT, again.targets_NT)
    assert found.targets_NT[:, :9].abs().max() <= 1 and set(found.targets_NT[:, 9].tolist()) <= {0.0, 1.0}


def test_heads_learn_parameters_encoded_in_the_features():
    generator = torch.Generator().manual_seed(0)
    f1, f2 = torch.rand(2, 600, 10, generator=generator)
    targets = f1 - f2
    targets[:, 9] = ((f1[:, 9] > 0.5) == (f2[:, 9] > 0.5)).float()
    x = torch.cat([f1, f2], 1)
    heads = parameters.train_heads(x[:500], targets[:500], epochs=4, batch_size=50)
    predicted = parameters.predict(heads, x[500:])
    assert min(ridge.r2(predicted[:, [0, *range(2, 9)]], targets[500:][:, [0, *range(2, 9)]])) > 0.8


def test_layers_compare_an_image_with_its_augmented_version(run, photos):
    split = read_dataset(photos).splits["train"]
    found = layers.measure(load_encoder(str(run)), split, seed=0, device=torch.device("cpu"), names=("flip", "blur"))
    stages = ["input", "conv1", "layer1", "layer2", "layer3", "layer4", "features", "projector"]
    assert list(found["flip"]) == stages
    gray = [read_dataset(photos).splits["train"].images.open(i) for i in range(2)]
    assert gray[0].mode == "RGB"
    flipped = found["flip"]["input"]["same"]
    assert flipped.shape == (16,) and float(flipped.max()) < 0.999
    assert float(found["blur"]["input"]["same"].mean()) > float(found["blur"]["input"]["other"].mean())
    same = layers.compare_features(torch.eye(4), torch.eye(4))
    assert torch.equal(same[0], torch.ones(4)) and torch.equal(same[1], torch.zeros(4))
    expected = 2 * 0.2 * -math.log(math.exp(5) / (math.exp(5) + 3))
    torch.testing.assert_close(same[2], torch.full((4,), expected))


# Fusion


def test_fusion_concatenates_averages_or_adds():
    a, b = (Representation(n, torch.full((2, 3), v), "same") for n, v in (("a", 1.0), ("b", 3.0)))
    assert fuse([a, b]).x_ND.tolist() == [[1, 1, 1, 3, 3, 3]] * 2 and fuse([a, b]).name == "a + b"
    assert fuse([a, b], "mean").x_ND.tolist() == [[2, 2, 2]] * 2
    assert fuse([a, b], "add").x_ND.tolist() == [[4, 4, 4]] * 2


def test_features_in_another_order_are_refused(run, photos):
    split, encoder = read_dataset(photos).splits["train"], load_encoder(str(run))
    forward = Extractor()(encoder, split, "train")
    backward = Extractor()(encoder, split.take(np.arange(len(split))[::-1].copy()), "train")
    with pytest.raises(UsageError, match="different images, or in different orders"):
        fuse([forward, backward])
    with pytest.raises(UsageError, match="cannot be fused by mean; pass --fuse concat"):
        fuse([forward, forward._replace(x_ND=forward.x_ND[:, :5])], "mean")


def test_the_result_has_the_gain_from_each_model():
    def mean(x):
        from fastaugself.probes.intervals import Score

        value = float(x["test"].sum())
        return Outcome("sum", Score(value, value, value), 1, {})

    parts = [{"test": Representation(n, torch.full((1, 1), v), "i")} for n, v in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    found = run_protocol(mean, parts, "concat")
    assert [(row.models, row.score.value) for row in found.rows][-1] == (("a", "b", "c"), 7.0)
    assert len(found.rows) == 3 + 3 + 1
    assert found.adds == {"a": 1.0, "b": 2.0, "c": 4.0}


# Commands


@pytest.mark.parametrize(
    ("command", "options", "rows"),
    [
        ("knn", ("--neighbors", 3, "--fuse", "mean"), 3),
        ("linear", (), 3),
        ("fewshot", ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 20, "--fuse", "add"), 3),
        ("retrieval", ("--neighbors", 2, "--shown", 3), 3),
        ("information", ("--epochs", 1, "--fuse", "add"), 3),
        ("parameters", ("--fuse", "mean"), 9),
        ("layers", ("--augmentations", "flip"), 2 * 7 + 1),
    ],
)
def test_commands_write_a_result_and_a_row_of_the_table(command, options, rows, run, other, photos, tmp_path, capsys):
    out, kept = tmp_path / "out", tmp_path / "cache"
    models = (f"a@{run}", f"b@{other}")
    assert call(command, *models, "--data", photos, "--out", out, "--cache", kept, *options) == 0, capsys.readouterr()
    (path,) = out.glob("*.json")
    record = json.loads(path.read_text())
    assert "-a+b-" in path.name  # the names of all models
    assert (
        record["protocol"] == command and len(record["rows"]) == rows and record["environment"]["commit"] is not False
    )
    assert all(row["low"] <= row["value"] <= row["high"] for row in record["rows"])
    if command != "layers":
        how = options[-1] if "--fuse" in options else "concat"
        assert record["rows"][-1]["fusion"] == how and len(record["rows"][-1]["models"]) == 2
        assert ("a + b (" in (out / "results.md").read_text()) == (how != "concat")
    with open(out / "results.csv") as text:
        assert [float(row["value"]) for row in csv.DictReader(text)].__len__() == rows
    assert call(command, *models, "--data", photos, "--out", out, "--cache", kept, *options) == 0
    (again,) = out.glob("*.json")
    assert json.loads(again.read_text())["rows"] == record["rows"]
    if command == "retrieval":
        page = path.with_suffix(".html").read_text()
        assert page.count('<section class="found">') == 3 and "a + b" in page and 'src="data:image' in page
    if command == "layers":
        page = path.with_suffix(".html").read_text()
        assert "<h2>flip</h2>" in page and "layer4" in page and "projector" in page and "a, input" in page


def test_invariance_writes_its_page(run, other, photo_folder, tmp_path):
    arguments = ("--images", 3, "--values", 2, "--transforms", "h_flip", "hue", "--split", "all", "--fuse", "none")
    assert (
        call("invariance", run, other, "--data", photo_folder, "--out", tmp_path, "--cache", tmp_path, *arguments) == 2
    )
    many = tmp_path / "many" / "all"
    many.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(70):
        Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(many / f"{i}.png")
    assert call("invariance", run, other, "--data", many, "--out", tmp_path, "--cache", tmp_path, *arguments) == 0
    (path,) = tmp_path.glob("invariance-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [(row["models"], row["metric"]) for row in rows] == [
        ([m], f"{t} (debiased)") for m in ("tiny", "other") for t in ("h_flip", "hue")
    ]
    assert rows[0]["details"]["by_value"][0] == pytest.approx(1.0, abs=1e-6)
    page = path.with_suffix(".html").read_text()
    assert "<svg" in page and "False" not in page and "(&#x27;" not in page
    foot = html.unescape(page.rsplit('<p class="note">', 1)[1].split("</p>")[0])
    assert foot == (
        "3 images of the all split; 2 transforms with about 2 values each, over the range of each; shorter side "
        "resized to 256/224 of the input, then the central square; features whitened over all 70 clean images of the "
        "split; input size of each model's own; each model alone; seed 0."
    )


def test_views_of_objects_are_measured_and_fused(run, other, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "coil").mkdir()
    for obj in range(50):
        object_ = rng.integers(0, 256, (4, 4, 3))
        for angle in range(3):
            pixels = (object_ + rng.integers(-9, 9, (4, 4, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((36, 36)).save(tmp_path / "coil" / f"obj{obj}__{angle}.png")
    common = ("--data", tmp_path / "coil", "--dataset", "coil100", "--out", tmp_path / "out", "--cache", tmp_path / "c")
    assert call("invariance", run, other, "--views", *common) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["models"] for row in rows] == [["tiny"], ["other"], ["tiny", "other"]] and rows[2]["fusion"] == "concat"
    for row in rows:  # the diagonal adds (1 - debiased) / 3
        published = row["details"]["published"]["value"]
        assert published == pytest.approx(row["value"] + (1 - row["value"]) / 3) and row["value"] > 0.05
    assert "150 views of objects" in path.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["knn", "{run}", "--data", "{tmp}/missing"],
            "no such file or folder; pass a folder with one folder per class",
        ),
        (["layers", "{run}", "--data", "{photos}", "--split", "dev"], "pass --split test"),
        (["invariance", "{run}", "--data", "{photos}", "--split", "dev"], "--split dev: "),
        (["knn", "{run}", "--data", "{tmp}/empty"], "holds no photos"),
        (["knn", "{run}", "--data", "{tmp}/one"], "has one class"),
        (["knn", "--data", "{tmp}/one"], "no model given"),
        (["knn", "{run}", "--data", "{photos}", "--dataset", "cifar11"], "--dataset cifar11 is unknown"),
        (["knn", "{run}", "--data", "{photos}", "--resize", "8"], "--resize 8 is below the 32 pixels"),
        (["invariance", "{run}", "--data", "{photos}", "--resize", "32"], "leaves no border around the 32 pixels"),
        (["knn", "{run}", "--data", "{photos}", "--neighbors", "0"], "--neighbors must be at least 1, got 0"),
        (["knn", "{run}", "--data", "{photos}", "--temperature", "nan"], "--temperature must be at least 0.001"),
        (["invariance", "{run}", "--data", "{photos}", "--values", "1"], "--values must be at least 2, got 1"),
        (["localize", "{run}", "--data", "{photos}"], "has no boxes"),
        (["regression", "{run}", "--data", "{photos}"], "has no targets"),
        (["kn", "{run}"], "eval takes one of knn, linear"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_refused_with_the_reason(arguments, message, run, photos, photo_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for split in ("train", "test"):
        (tmp_path / "one" / split).mkdir(parents=True)
        (tmp_path / "one" / split / "coffee").symlink_to(photo_folder / "coffee")
    names = {"{run}": run, "{photos}": photos, "{tmp}": tmp_path}
    filled = []
    for argument in arguments:
        for name, value in names.items():
            argument = argument.replace(name, str(value))
        filled.append(argument)
    assert call(*filled, *(["--cache", tmp_path / "cache", "--out", tmp_path / "out"] if len(filled) > 2 else [])) == 2
    assert message in capsys.readouterr().err


def test_targets_beside_the_photos_are_regressed_and_localised(run, photos, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        rows = []
        for path in sorted((photos / split).rglob("*.jpg")):
            with Image.open(path) as image:
                width, height = image.size
            side = min(width, height) / 2
            left, top = width / 2 - rng.uniform(0.1, 0.9) * side, height / 2 - rng.uniform(0.1, 0.9) * side
            name = path.relative_to(photos / split).as_posix()
            rows.append(f"{name},{left},{top},{left + side / 2},{top + side / 2}")
        (photos / split / "targets.csv").write_text("file,left,top,right,bottom\n" + "\n".join(rows))
    common = ("--data", photos, "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    assert call("localize", run, *common) == 0, capsys.readouterr()
    (path,) = (tmp_path / "out").glob("localize*.json")
    details = json.loads(path.read_text())["rows"][0]["details"]
    assert 0 <= details["mean_iou"] <= 1 and details["error_of_the_mean_box"] > 0
    assert call("regression", run, *common) == 0
    text = (photos / "test" / "targets.csv").read_text().splitlines()
    (photos / "test" / "targets.csv").write_text("\n".join(text[:-1]))
    assert call("regression", run, *common) == 2
    assert "has no row for" in capsys.readouterr().err
