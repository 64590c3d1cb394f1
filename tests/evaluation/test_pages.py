"""Pages of several models stay beside each other; `eval parameters` has one row per group of parameters."""

import csv
import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny_eval import call

from fastaugself.evaluation.commands import Parameters
from fastaugself.evaluation.fusion import Representation
from fastaugself.evaluation.options import Options
from fastaugself.evaluation.parameters import Pairs
from fastaugself.evaluation.run import run_protocol


@pytest.mark.parametrize(
    "options",
    [
        ("retrieval", "--neighbors", 2, "--shown", 2),
        ("layers", "--augmentations", "flip"),
        ("equivariance", "--augmentations", "flip", "--views", 3, "--train-views", 2, "--epochs", 1),
    ],
    ids=lambda options: options[0],
)
def test_models_of_equal_names_from_different_folders_have_their_own_pages(options, run, photos, tmp_path):
    other_run = tmp_path / "elsewhere" / run.name
    shutil.copytree(run, other_run)
    out = tmp_path / "out"
    common = ("--data", photos, "--out", out, "--cache", tmp_path / "cache", "--device", "cpu")
    for model in (run, other_run, run):  # the same evaluation again replaces its own page
        assert call(options[0], model, *options[1:], *common) == 0
    pages = sorted(out.glob("*.html"))
    assert len(pages) == 2 and all(page.name.startswith(f"{options[0]}-photos-tiny-") for page in pages)
    assert [page.with_suffix(".json").is_file() for page in pages] == [True, True]


def probed(probe, targets, features):
    """The rows of `eval parameters` for these targets and features of both views by split."""
    command = Parameters(("a",), data=".", probe=probe)
    found = {n: Pairs(Representation("a", features[n], n), targets[n]) for n in targets}
    object.__setattr__(command, "_pairs", lambda dataset, extract, encoder, name: found[name])
    protocol = command.protocol(SimpleNamespace(), None, [None])
    return run_protocol(protocol, [command.parts(None, None, None)], None).rows


@pytest.mark.parametrize("probe", ["linear", "heads"])
def test_parameters_are_scored_in_groups(probe):
    """Features that hold the crop and half of the columns of the colour, and nothing of the blur."""
    generator = torch.Generator().manual_seed(0)
    targets, features = {}, {}
    for name, count in (("train", 400), ("val", 200), ("test", 300)):
        f1, f2 = torch.rand(2, count, 10, generator=generator)
        targets[name] = f1 - f2
        targets[name][:, 9] = ((f1[:, 9] > 0.5) == (f2[:, 9] > 0.5)).float()
        features[name] = torch.cat([f1[:, :6], f2[:, :6]], 1)
    rows = {row.metric: row for row in probed(probe, targets, features)}
    names = ["R2 of crop", "R2 of color", "R2 of blur"]
    assert list(rows) == (names if probe == "linear" else [*names, "accuracy of flip"])
    crop, color, blur = (rows[name].score.value for name in names)
    assert crop > 0.8 and 0.3 < color < 0.6 and blur < 0.05
    by_column = rows["R2 of color"].details["r2"]
    assert list(by_column) == ["brightness", "contrast", "saturation", "hue"]
    assert sum(by_column.values()) / 4 == pytest.approx(color)
    if probe == "heads":
        row, share = rows["accuracy of flip"], float(targets["test"][:, 9].mean())
        assert row.details["chance"] == pytest.approx(max(share, 1 - share))
        assert abs(row.score.value - 0.5) < 0.1 and row.samples == 300


def test_the_table_and_the_json_have_a_row_per_group(run, photos, tmp_path, capsys):
    common = ("--data", photos, "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")
    assert call("parameters", run, f"b@random:{run}", *common, "--fuse", "concat") == 0
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text())
    groups = ["R2 of crop", "R2 of color", "R2 of blur"]
    assert [row["metric"] for row in record["rows"]] == 3 * groups
    assert set(record["adds"]) == {f"{model} ({metric})" for model in ("tiny", "b") for metric in groups}
    with open(tmp_path / "out" / "results.csv") as text:
        assert sorted(row["metric"] for row in csv.DictReader(text)) == sorted(3 * groups)
    printed = capsys.readouterr().out
    assert printed.count("R2 of crop") == 3 + 2 and printed.count("R2 of blur") == 3 + 2


def test_options_are_said_in_words():
    options = Options(("a", "b"), data=".", size=96, resize=110, limit=50, resplit=True, fuse="mean", seed=3)
    assert options.words("9 images", "") == (
        "9 images; at most 50 samples per split; input of 96 × 96 px; shorter side resized to 110 px, then the central "
        "square; validation split drawn anew; features of several models averaged; seed 3."
    )
    assert Options(("a",), data=".").words() == "Input size of each model's own; seed 0."


def test_long_names_of_rows_stay_inside_a_heatmap():
    from fastaugself.evaluation.invariance_page import matrix

    for name in ("h_flip", "clean, classes of imagenet-sketch"):
        drawn = matrix({"model": {name: 0.5}})
        end = int(re.search(rf'<text x="(\d+)"[^>]*text-anchor="end">{name}<', drawn)[1])
        assert end >= 5.5 * len(name)  # the page's labels are 11 pixels high
        assert int(re.search(r'<rect x="(\d+)"', drawn)[1]) > end
