"""`fastaugself eval geometry` and `eval cka`: scores from the models' own features, the page, and their errors."""

import json

import numpy as np
import pytest
import torch
from tiny_eval import call

from fastaugself.evaluation.commands_geometry import FEWEST, Cka, Geometry
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.equivariance import encode, policies
from fastaugself.evaluation.features import Extractor
from fastaugself.evaluation.pooled_layers import layer_features
from fastaugself.probes.alpha_req import alpha_req
from fastaugself.probes.cka import gram, linear_cka
from fastaugself.probes.lidar import lidar
from fastaugself.probes.rankme import rankme


@pytest.fixture(scope="module")
def whole(photo_folder):
    """The photos of two classes, without splits."""
    return photo_folder


def written(out, protocol):
    (path,) = out.glob(f"{protocol}-*.json")
    return {(*row["models"], row["metric"]): row for row in json.loads(path.read_text())["rows"]}


def test_geometry_of_models_alone_and_fused(run, other, whole, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    options = ["--data", whole, "--split", "all", "--photos", 24, "--views", 3, "--out", out, "--cache", cache]
    assert call("geometry", f"a@{run}", f"b@{other}", *options) == 0
    rows = written(out, "geometry")
    split = read_dataset(whole).split("all")
    parts = [Extractor()(load_encoder(str(spec)), split, "all").x_ND for spec in (run, other)]
    for names, x in ((("a",), parts[0]), (("b",), parts[1]), (("a", "b"), torch.cat(parts, 1))):
        assert rows[*names, "RankMe"]["value"] == pytest.approx(rankme(x))
        assert rows[*names, "alpha-ReQ"]["value"] == pytest.approx(alpha_req(x))
        assert rows[*names, "LiDAR"]["samples"] == 24 and 1 < rows[*names, "LiDAR"]["value"] < 24
        for metric in ("RankMe", "LiDAR", "alpha-ReQ"):
            row = rows[*names, metric]
            assert row["low"] < row["value"] < row["high"]


def test_lidar_is_of_the_addressed_views_of_all_photos(run, whole, tmp_path):
    (row,) = [
        r
        for r in Geometry(
            models=(str(run),),
            data=whole,
            split="all",
            views=4,
            augmentation="crop",
            seed=5,
            out=tmp_path,
            cache=tmp_path,
        )()
        if r.metric == "LiDAR"
    ]
    views = encode(
        Extractor(), load_encoder(str(run)), read_dataset(whole).split("all"), policies(32)["crop"], views=4, seed=5
    )
    assert row.score.value == pytest.approx(lidar(views.features.x_ND.unflatten(0, (-1, 4))), rel=1e-5)


def test_cka_of_models_and_of_their_layers(run, other, whole, tmp_path):
    options = ["--data", whole, "--split", "all", "--photos", 40, "--out", tmp_path / "out", "--cache", tmp_path / "c"]
    assert call("cka", f"a@{run}", f"b@{other}", *options) == 0
    found = written(tmp_path / "out", "cka")["a", "b", "CKA"]
    assert found["samples"] == 40 and 0 < found["value"] < 1 and found["low"] < found["value"] < found["high"]
    rows = Cka(models=(f"a@{run}", f"b@{other}"), data=whole, split="all", layers=True, out=tmp_path, cache=tmp_path)()
    split = read_dataset(whole).split("all")
    layers = [layer_features(Extractor(), load_encoder(str(spec)), split, "all") for spec in (run, other)]
    by_metric = {(row.models, row.metric): row.score.value for row in rows}
    names = list(layers[0])
    assert names == ["conv1", "layer1", "layer2", "layer3", "layer4", "features"]
    assert len(rows) == 12 * 11 // 2
    expected = linear_cka([gram(layers[0]["layer2"]), gram(layers[1]["features"])])[0, 1]
    assert by_metric[("a", "b"), "CKA of layer2 and features"] == pytest.approx(float(expected))
    assert by_metric[("a",), "CKA of layer4 and features"] == pytest.approx(1, abs=1e-6)  # the features are its mean
    page = next(tmp_path.glob("cka-*.html")).read_text()
    assert "Layers of a (rows) and b (columns)" in page and page.count("<rect") == 3 * 36 and "concatenated" not in page


def test_a_single_model_is_compared_by_layer(run, whole, tmp_path, capsys):
    assert call("cka", run, "--data", whole, "--split", "all", "--out", tmp_path, "--cache", tmp_path) == 0
    assert "tiny layer4    CKA with the features of tiny 1.0000" in capsys.readouterr().out


def test_layers_are_the_mean_over_positions(run, whole):
    encoder, split = load_encoder(str(run)), read_dataset(whole).split("all")
    found = layer_features(Extractor(batch_size=5), encoder, split, "all")
    image = encoder.transform(split.images.open(7))
    x = encoder.module.conv1(image[None])
    np.testing.assert_allclose(found["conv1"][7], x.mean((2, 3))[0].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("command", ["geometry", "cka"])
def test_too_few_photos_are_refused(command, run, photos, tmp_path, capsys):
    assert call(command, run, "--data", photos, "--out", tmp_path, "--cache", tmp_path) == 2
    assert f"8 photos in the test split, and {command} needs at least {FEWEST}: pass --data" in capsys.readouterr().err


def test_an_unknown_augmentation_is_refused_before_models_are_loaded(photos, tmp_path, capsys):
    options = ["--data", photos, "--augmentation", "noise", "--out", tmp_path]
    assert call("geometry", "nowhere", *options) == 2
    assert "unknown augmentation noise; pass --augmentation all or crop" in capsys.readouterr().err
