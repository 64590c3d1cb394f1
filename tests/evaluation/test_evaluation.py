"""Evaluation of frozen encoders: loading, feature cache, splits, fusion, commands and their errors."""

import csv
import dataclasses
import html
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_eval import call

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation import cache, layers, parameters
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.features import Extractor, Frozen
from fastaugself.evaluation.fusion import Representation, fuse
from fastaugself.evaluation.protocols import Outcome
from fastaugself.evaluation.run import run_protocol
from fastaugself.evaluation.splits import cut, cut_by_class, require_classes, thin, with_val
from fastaugself.probes import ridge

# Encoders


def test_a_run_its_export_and_its_file_are_the_same_encoder(run):
    x = torch.randn(2, 3, 32, 32)
    found = [load_encoder(str(p)) for p in (run, run / "export", run / "export" / "model.safetensors")]
    assert {encoder.name for encoder in found} == {"tiny"}
    assert {encoder.size for encoder in found} == {32}
    outputs = [encoder.module(x) for encoder in found]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[1], outputs[2])
    assert len({encoder.digest for encoder in found}) == 1
    assert load_encoder(str(run), size=48).digest != found[0].digest


def test_random_weights_are_a_runs_initial_ones_or_depend_on_the_seed(run):
    control = load_encoder(f"control@random:{run}")
    assert control.name == "control" and control.size == 32
    assert control.digest == load_encoder(str(run)).digest  # this run was never trained
    first, again, third = (load_encoder("random:resnet18", size=64, seed=s).digest for s in (0, 0, 1))
    assert first == again != third


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "no such file or folder"),
        ("random:resnet19", r"neither a run folder nor an architecture; did you mean random:resnet18\?"),
        ("random:nowhere", "neither a run folder nor an architecture; pass random:RUN, random:resnet18"),
        ("{tmp}", "holds neither a run"),
        ("{tmp}/cut.safetensors", "export it again"),
        ("{run}/config.json", r"not a \.safetensors file but a part of .*tiny: pass that folder"),
        ("{run}/checkpoints/step-000000003.pt", r"not a \.safetensors file but a part of .*tiny: pass that folder"),
        ("{run}/checkpoints", "nor an export .* but a part of .*tiny: pass that folder"),
        ("", "a model is empty; pass a run folder"),
        ("label@", "model label@: nothing follows @; pass a run folder"),
        ("resnet50=", "model resnet50=: nothing follows =; pass"),
        ("timm:", "model timm:: nothing follows :; pass"),
        ("torchvision:resnet18=", "nothing follows =; pass"),
        ("random:", "nothing follows :; pass"),
        ("{tmp}/bare/model.safetensors", r"config\.json is missing: copy the config\.json that `fastaugself export`"),
        ("{tmp}/other/model.safetensors", r"does not describe the model \(it has no 'fastaugself'\): copy"),
    ],
)
def test_an_unknown_or_damaged_model_is_refused(spec, message, run, tmp_path):
    for name in ("bare", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes((run / "export" / "model.safetensors").read_bytes())
    (tmp_path / "other" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "cut.safetensors").write_bytes((run / "export" / "model.safetensors").read_bytes()[:-9])
    with pytest.raises((UsageError, RunError), match=message):
        load_encoder(spec.replace("{tmp}", str(tmp_path)).replace("{run}", str(run)))


def test_a_torchvision_model_gives_its_pooled_features(torchvision, tmp_path):
    torch.manual_seed(3)
    model = torchvision.models.resnet18().eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = load_encoder(f"torchvision:resnet18={tmp_path / 'weights.pth'}", size=64)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.fc(encoder.module(x)), model(x))
    with pytest.raises(UsageError, match="did you mean torchvision:resnet18"):
        load_encoder("torchvision:resnet188")


def test_a_checkpoint_of_any_torchvision_model_is_loaded_completely_or_refused(torchvision, tmp_path):
    model, path = torchvision.models.mobilenet_v3_small().eval(), tmp_path / "weights.pth"
    state = {"module." + name: value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    encoder = load_encoder(f"torchvision:mobilenet_v3_small={path}", size=32)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.classifier(encoder.module(x)), model(x))
    state.pop("module.features.0.0.weight")
    torch.save(state, path)
    with pytest.raises(RunError, match=r"does not fit this backbone: the file lacks features\.0\.0\.weight"):
        load_encoder(f"torchvision:mobilenet_v3_small={path}")
    torch.save({"decoder.weight": torch.ones(2)}, path)
    with pytest.raises(UsageError, match=r"holds no weights of this model; its first names are decoder\.weight"):
        load_encoder(f"torchvision:mobilenet_v3_small={path}")


# Features and their cache


def test_features_are_the_models_outputs_with_the_published_preprocessing(run, photos, torchvision):
    from torchvision.transforms import v2

    encoder, dataset = load_encoder(str(run)), read_dataset(photos)
    split = dataset.splits["train"]
    resize, crop = v2.Resize(40, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)
    x = torch.stack([v2.functional.pil_to_tensor(crop(resize(split.images.open(i)))) for i in range(len(split))])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    expected = encoder.module((x / 255 - mean) / std)
    found = Extractor(resize=40, batch_size=5)(encoder, split, "train")
    torch.testing.assert_close(found.x_ND, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def counted(monkeypatch):
    """Batch sizes of all forward passes."""
    seen = []
    original = Frozen.__call__
    monkeypatch.setattr(Frozen, "__call__", lambda self, x: seen.append(len(x)) or original(self, x))
    return seen


def test_features_are_extracted_once_per_model_and_images(run, other, photos, tmp_path, counted):
    split, extract = read_dataset(photos).splits["train"], Extractor(folder=tmp_path / "cache")
    first = extract(load_encoder(str(run)), split, "train")
    again = extract(load_encoder(str(run)), split, "train")
    assert torch.equal(first.x_ND, again.x_ND) and sum(counted) == 16
    extract(load_encoder(str(other)), split, "train")
    assert sum(counted) == 32
    dataclasses.replace(extract, resize=40)(load_encoder(str(run)), split, "train")
    assert sum(counted) == 48


def test_a_damaged_cache_is_computed_again(run, photos, tmp_path, counted):
    split, extract = read_dataset(photos).splits["test"], Extractor(folder=tmp_path / "cache")
    encoder = load_encoder(str(run))
    whole = extract(encoder, split, "test").x_ND
    (path,) = (tmp_path / "cache").glob("*.npy")
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-5] ^= 1
    for damaged in (data[:-100], bytes(flipped), b""):
        path.write_bytes(damaged)
        assert torch.equal(extract(encoder, split, "test").x_ND, whole)
    assert sum(counted) == 8 * 4
    assert path.read_bytes() == data


def test_an_interrupted_write_leaves_no_cache_file(tmp_path):
    def batches():
        yield np.ones((2, 3), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.write(tmp_path, "key", 4, batches())
    assert list(tmp_path.iterdir()) == [] and cache.read(tmp_path, "key", 4) is None
    with pytest.raises(RunError, match="got 2 rows of features for 4 samples"):
        cache.write(tmp_path, "key", 4, [np.ones((2, 3), np.float32)])


def test_a_changed_photo_is_noticed_even_with_equal_size_and_time(run, photos, tmp_path, counted):
    extract, encoder = Extractor(folder=tmp_path / "cache"), load_encoder(str(run))
    before = extract(encoder, read_dataset(photos).splits["test"], "test").x_ND
    path = photos / "test" / "coffee" / "8.jpg"
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 16
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = extract(encoder, read_dataset(photos).splits["test"], "test").x_ND
    assert sum(counted) == 16 and not torch.equal(before, after)


def test_features_with_nan_are_refused_and_not_cached(run, photos, tmp_path):
    encoder = load_encoder(str(run))
    encoder.module.bn1.weight[0] = math.nan
    extract = Extractor(folder=tmp_path / "cache")
    with pytest.raises(RunError, match=r"features of tiny on test contain NaN or Inf \(first: sample 0\)"):
        extract(encoder, read_dataset(photos).splits["test"], "test")
    assert list((tmp_path / "cache").glob("*.npy*")) == []


# Splits


def test_cut_matches_torchs_random_split():
    kept, held_out = cut(50, 5, seed=43)
    first, second = torch.utils.data.random_split(range(50), [45, 5], generator=torch.Generator().manual_seed(43))
    assert kept.tolist() == list(first.indices) and held_out.tolist() == list(second.indices)


def test_cut_by_class_is_stratified_and_keeps_a_sample_of_each_class():
    labels = np.array([0] * 10 + [1] * 3 + [2])
    kept, held_out = cut_by_class(labels, 0.2, seed=0)
    assert np.bincount(labels[held_out], minlength=3).tolist() == [2, 1, 0]
    assert sorted([*kept, *held_out]) == list(range(14))


def test_a_limit_on_samples_is_stratified_by_class():
    labels = np.array([0] * 80 + [1] * 20 + [2])
    chosen = thin(labels, 31, seed=0)
    counts = np.bincount(labels[chosen])
    assert len(chosen) == len(set(chosen)) == 31 and counts[2] == 1 and 22 <= counts[0] <= 26
    assert set(labels[thin(labels, 2, seed=0)]) == {0, 1, 2}


def test_splits_with_different_classes_are_refused(photos):
    dataset = read_dataset(photos)
    require_classes(dataset, ("train", "test"))
    (photos / "test" / "coffee").rename(photos / "train" / "tea")
    dataset = read_dataset(photos)
    with pytest.raises(UsageError, match=r"class coffee .2 in all. is missing from the test split"):
        require_classes(dataset, ("train", "test"))
    (photos / "train" / "coffee").rename(photos / "test" / "coffee")
    with pytest.raises(UsageError, match=r"class coffee .1 in all. is in the test split but not in train"):
        require_classes(read_dataset(photos), ("train", "test"))


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


def test_a_validation_split_is_drawn_from_train(photos):
    dataset = with_val(read_dataset(photos), seed=0)
    assert [len(dataset.splits[name]) for name in ("train", "val", "test")] == [14, 2, 8]
    assert not {*dataset.splits["train"].names} & {*dataset.splits["val"].names}


@pytest.mark.parametrize("home", ["none", "missing", "unwritable", "usual"])
def test_the_cache_of_a_user_without_a_home_is_in_a_folder_of_this_user(home, tmp_path, monkeypatch):
    for name in ("FASTAUGSELF_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    if home == "none":  # of a user who is not in /etc/passwd
        monkeypatch.setattr(Path, "home", lambda: Path("~none-such").expanduser())
    else:
        folder = {"missing": "/proc/none", "unwritable": tmp_path / "home", "usual": tmp_path / "home"}[home]
        monkeypatch.setenv("HOME", str(folder))
    if home == "unwritable":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = cache.default_folder()
    assert found.is_dir()
    if home == "usual":
        assert found == tmp_path / "home" / ".cache" / "fastaugself"
        return
    assert found == tmp_path / "tmp" / f"fastaugself-{os.getuid()}"
    assert found.stat().st_mode & 0o777 == 0o700
    assert cache.default_folder() == found
    found.rmdir()
    found.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="belongs to another user: pass --cache FOLDER, or export FASTAUGSELF_CACHE="):
        cache.default_folder()
    monkeypatch.setenv("FASTAUGSELF_CACHE", str(tmp_path / "own"))
    assert cache.default_folder() == tmp_path / "own"
