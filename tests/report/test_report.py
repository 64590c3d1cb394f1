"""The report of a run: correct numbers, one file, and never the reason why a finished training fails."""

import html
import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch
from tiny_reports import config, written
from tiny_runs import train

from fastaugself import AugSelf, Data, Log, ViewPolicy
from fastaugself.aware.augself import REGRESSED
from fastaugself.aware.cassle import CASSLE
from fastaugself.methods.byol import BYOL
from fastaugself.methods.simsiam import SimSiam
from fastaugself.methods.supervised import Supervised
from fastaugself.report import predictions, report
from fastaugself.report.checks import chance
from fastaugself.report.compare import compared, read_run
from fastaugself.report.report import Report, write_report
from fastaugself.report.text import compare
from fastaugself.report.words import OPERATIONS
from fastaugself.runs.records import final_mean, read_lines, without_stub
from fastaugself_kernels import augself_targets, sample_params

pytestmark = pytest.mark.usefixtures("fewer_pairs")
ROOT = Path(__file__).parents[2]
ALL_HEADS = AugSelf(crop=1, color=1, flip=1, blur=1, rotation=1, solarize=1, hidden=16, mode="fixed")


@pytest.fixture(autouse=True)
def warnings_arrive(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("fastaugself"), "propagate", True)
    caplog.set_level(logging.WARNING)


@pytest.fixture(scope="module")
def finished(beton, tmp_path_factory):
    """A finished run with evaluations."""
    return train(config(beton, tmp_path_factory.mktemp("runs") / "finished"))


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_report_is_one_file_that_needs_nothing_else(finished, caplog):
    page = written(finished)
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert all(target.startswith("#") for target in re.findall(r"href=.([^'\"]+)", page))
    assert set(re.findall(r'src="([^:]+):', page)) == {"data"}
    assert "is missing" not in page and caplog.records == []
    assert re.findall(r"<h2[^>]*>([^<]+)", page) == [
        "Losses", "Predictions of the AugSelf heads", "Evaluations during training",
        "What this shows and what it does not", "What to do next", "Configuration and environment",
    ]  # fmt: skip


def test_the_report_says_what_was_trained_and_where_the_weights_are(finished):
    page = text_of(written(finished))
    assert "MoCo v2 + AugSelf (crop, colour): a ResNet-18 of width 4 trained on 64 photos at 16 px" in page
    assert str(finished.config.run / "export" / "model.safetensors") in page
    assert "8 steps" in page and "The run ended at step" not in page


def test_the_levels_are_those_of_environment_json(finished):
    levels = json.loads((finished.config.run / "environment.json").read_text())["baseline_losses"]
    page = text_of(written(finished))
    assert f"baseline {levels['crop']:.3f}" in page and f"baseline {levels['color']:.3f}" in page
    assert "0.133" in page and "0.032" in page  # the published ones


def test_an_unfinished_run_says_so(beton, tmp_path):
    assert "The run ended at step 3 of 8." in text_of(written(train(config(beton, tmp_path, max_steps=3))))


def test_a_resumed_run_counts_each_step_once(beton, tmp_path):
    train(config(beton, tmp_path, max_steps=3))
    trainer = train(config(beton, tmp_path))
    found = Report(tmp_path, trainer)
    assert [m["step"] for m in found.metrics] == list(range(1, 9))
    by_hand = sum(16 / m["pairs_per_s"] for m in found.metrics)
    assert found.training_seconds() == pytest.approx(by_hand)
    assert "is missing" not in written(trainer)


@pytest.mark.parametrize("parts", [(True, False), (False, True), (True, True), (True, None)])
def test_checks_of_a_part_with_validation_photos_are_shown(beton, tmp_path, parts, caplog):
    """Resumed without --data.val, with it for the first time, or with photos that were lost since."""
    copies = []
    for i, val in enumerate(parts):
        copies.append(tmp_path / f"val{i}.beton")
        copies[-1].write_bytes(beton.read_bytes())
        data = Data(train=beton, val=None if val is False else copies[-1], source="native", workers=1)
        trainer = train(config(beton, tmp_path / "run", data=data, max_steps=3 * (i + 1)))
        if val is None:
            copies[-1].unlink()
    page = text_of(written(trainer))
    assert "Effective rank" in page and "k-NN accuracy" in page
    assert ("largest class" in page) == bool(parts[-1])
    assert 'The section "checks"' not in page and 'The section "head"' not in page


@pytest.mark.parametrize("val", [False, True])
def test_a_run_without_heads_shows_its_views(beton, tmp_path, val, caplog):
    data = Data(train=beton, val=beton if val else None, source="native", workers=1)
    page = written(train(config(beton, tmp_path, augself=AugSelf(crop=0, color=0), data=data, max_steps=2)))
    assert "Pairs of views" in page and "Predictions of the AugSelf heads" not in page and "px at (" in page
    assert f"views of its {'validation' if val else 'training'} photos" in text_of(page)
    assert ("k-NN accuracy" in page) == val
    assert "MoCo v2: a ResNet-18" in text_of(page) and caplog.records == []


def test_every_head_is_reported(beton, tmp_path, caplog):
    view = ViewPolicy(size=24, rotation=0.5, solarize=0.5)
    page = text_of(written(train(config(beton, tmp_path, augself=ALL_HEADS, view=view, max_steps=2))))
    for name in ("crop", "colour", "flip", "blur", "rotation", "solarize"):
        assert f"AugSelf {name} loss" in page
    for name in ("crop: centre y", "colour: hue", "blur: sigma", "solarize: threshold", "same flip", "quarter turns"):
        assert name in page
    assert "% for the most frequent class" in page and caplog.records == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"method": SimSiam(), "cassle": CASSLE(conditioning="concat", width=8)}, "SimSiam + CASSLE + AugSelf"),
        ({"method": BYOL(), "view2": ViewPolicy(size=16, solarize=0.2)}, "BYOL + AugSelf"),
        ({"method": Supervised(), "augself": AugSelf(crop=0, color=0)}, "Supervised"),
    ],
    ids=["simsiam", "byol", "supervised"],
)
def test_other_methods_are_reported_under_their_names(beton, tmp_path, changes, name, caplog):
    page = text_of(written(train(config(beton, tmp_path, max_steps=2, **changes))))
    assert f"{name} on photos.beton" in page and f"{name.split(' + ')[0]} loss" in page
    assert "InfoNCE" not in page and caplog.records == []


def test_photos_without_labels_and_few_photos(photo_folder, tmp_path, caplog):
    from fastaugself.data.inputs.convert import write_beton

    beton = tmp_path / "few.beton"
    write_beton(photo_folder / "rocket", beton, progress=False)
    trainer = train(config(beton, tmp_path / "run", batch_size=8, max_steps=2))
    page = written(trainer)
    assert "Effective rank" in page and "k-NN accuracy" not in page and caplog.records == []
    found = predictions.evaluate_heads(trainer, cases=20, count=40, seconds=math.inf)
    assert found.total == 40 and len(found.cases) == 16  # 16 photos, in three epochs


def test_no_metrics_and_no_evaluation(beton, tmp_path, caplog):
    data, log = Data(train=beton, source="native", workers=1), Log(every=1000, tensorboard=False)
    trainer = train(config(beton, tmp_path, data=data, log=log, max_steps=1))
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    page = text_of(written(trainer))
    assert "No metrics were logged" in page and "The features were not evaluated" in page
    assert caplog.records == []


def test_names_are_escaped(beton, tmp_path):
    page = written(train(config(beton, tmp_path / "<b>run", max_steps=1)))
    assert "<b>run" not in page and "&lt;b&gt;run" in page


# --- checks of the features -------------------------------------------------------------------------------------------


def with_checks(trainer, monkeypatch, **values):
    """A report whose checks before training and at the end have these values."""
    found = Report(trainer.config.run, trainer)
    ends = zip((0, 8), zip(*values.values(), strict=True), strict=True)
    found.evaluations = [
        {"step": step, "epoch": step / 4, **dict(zip(values, numbers, strict=True))} for step, numbers in ends
    ]
    return found


def test_tiles_show_the_value_before_training(finished, monkeypatch):
    first = read_lines(finished.config.run / "evaluations.jsonl")[0]
    assert first["step"] == 0
    tiles = text_of(Report(finished.config.run, finished)._tiles())
    assert f"from {first['knn']:.1%} before training" in tiles and f"from {first['linear']:.1%} before" in tiles
    assert "chance" not in tiles
    tiles = text_of(with_checks(finished, monkeypatch, knn=(0.312, 0.5), linear=(0.25, 0.125))._tiles())
    assert re.search(r"k-NN accuracy\s+50.0%\s+from 31.2% before training", tiles)
    assert re.search(r"linear probe\s+12.5%\s+from 25.0% before training", tiles)


def test_tiles_show_chance_where_there_is_no_value_before_training(finished):
    found = Report(finished.config.run, finished)
    found.evaluations = [e for e in found.evaluations if e["step"] > 0]
    assert "chance: 25.0%" in text_of(found._tiles()) and "before training" not in text_of(found._tiles())
    found.evaluations = []
    assert "k-NN" not in found._tiles()


def test_a_check_that_ended_below_its_start_is_named(finished, monkeypatch):
    found = with_checks(
        finished, monkeypatch, knn=(0.312, 0.5), linear=(0.25, 0.125), r2_hue=(0.5, 0.25), r2_scale=(-0.5, 0.1)
    )
    said = text_of(found.checks())
    assert "Linear probe ended below its start: 12.5% after 8 steps, 25.0% before training." in said
    assert "Probe of hue ended below its start: R² 0.250 after 8 steps, R² 0.500 before training." in said
    assert "k-NN accuracy ended" not in said and "Probe of scale ended" not in said
    equal = text_of(with_checks(finished, monkeypatch, knn=(0.3, 0.3), linear=(0.25001, 0.25)).checks())
    assert "below its start" not in equal


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_part_that_fails_is_named_and_the_rest_is_there(beton, tmp_path, caplog, monkeypatch):
    trainer = train(config(beton, tmp_path, max_steps=1))
    monkeypatch.setattr(report, "evaluate_heads", lambda trainer: 1 / 0)
    page = written(trainer)
    assert 'The section "predictions" is missing: ZeroDivisionError' in page
    assert "<h2>Losses</h2>" in page and "What to do next" in page
    assert any("'predictions' of the report is missing (ZeroDivisionError" in r.message for r in caplog.records)


def test_lost_photos_and_damaged_records_do_not_stop_it(beton, tmp_path, caplog):
    copy = tmp_path / "copy.beton"
    copy.write_bytes(beton.read_bytes())
    run = tmp_path / "run"
    trainer = train(config(copy, run, max_steps=2))
    copy.unlink()
    (run / "environment.json").write_text("{")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "epoch": 0.5, "loss_ssl": NaN, "pairs_per_s": Infinity}\n[1]\n{"step": 4, "ep')
    page = written(trainer)
    assert "copy.beton: no such file" in text_of(page) and "AugSelf crop loss" in page
    assert "nan" not in text_of(page).split("Configuration and")[0].lower()


def test_a_report_that_cannot_be_written_is_a_warning(finished, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert write_report(tmp_path / "file", finished) is None
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "the report was not written" in caplog.text and "the weights are not affected" in caplog.text


# --- numbers ----------------------------------------------------------------------------------------------------------


def sampled_targets(beton, count=64):
    sizes_B2 = torch.tensor([[40, 60]] * count, dtype=torch.int32)
    policies = (ViewPolicy(size=24, rotation=0.5, solarize=0.5),) * 2
    params_VBP = sample_params(torch.arange(count), sizes_B2, policies, seed=0, epoch=0)
    return augself_targets(params_VBP, sizes_B2, policies, mode="fixed")[0]


def test_perfect_heads_remove_all_of_the_error_and_constant_ones_none(beton):
    targets = sampled_targets(beton)
    perfect = {head: torch.atanh(getattr(targets, field).clamp(-0.999999, 0.999999)) for head, field in
               REGRESSED.items()}  # fmt: skip
    perfect["flip"] = 20 * (targets.flip_B1 - 0.5)
    perfect["rotation"] = torch.nn.functional.one_hot(targets.rotation_B, 4).float()
    sums = predictions._Sums()
    sums.add(perfect, targets)
    for score in sums.scores():
        if score.regression:
            assert score.removed == pytest.approx(1, abs=1e-4) and score.baseline > 0
        else:
            assert score.error == 1
    constant = predictions._Sums()
    constant.add({head: torch.zeros_like(value) for head, value in perfect.items()}, targets)
    for score in constant.scores():
        assert not score.regression or score.removed == 0


def test_scores_over_batches_are_the_means_that_the_loss_takes(beton):
    targets = sampled_targets(beton)
    torch.manual_seed(0)
    raw = {"crop": torch.randn(64, 4), "color": torch.randn(64, 4), "flip": torch.randn(64, 1)}
    sums = predictions._Sums()
    for part in (slice(0, 10), slice(10, 64)):
        sums.add({k: v[part] for k, v in raw.items()}, type(targets)(*(t[part] for t in targets)))
    by_label = {s.label: s for s in sums.scores()}
    error = (torch.tanh(raw["color"]) - targets.color_B4).square().mean(0)
    assert [by_label[n].error for n in OPERATIONS] == pytest.approx(error.tolist(), rel=1e-5)
    assert by_label["centre x"].baseline == pytest.approx(float(targets.crop_B4[:, 1].square().mean()), rel=1e-5)
    right = ((raw["flip"] > 0) == (targets.flip_B1 > 0.5)).float().mean()
    flipped = targets.flip_B1.mean()
    assert by_label["same flip"].error == pytest.approx(float(right))
    assert by_label["same flip"].baseline == pytest.approx(float(max(flipped, 1 - flipped)))


def test_pairs_are_unseen_fixed_and_leave_the_model_as_it_was(finished):
    before = {name: value.clone() for name, value in finished.learner.state_dict().items()}
    finished.learner.train()
    first, second = (predictions.evaluate_heads(finished, cases=4, count=80, seconds=math.inf) for _ in range(2))
    assert finished.learner.training
    after = finished.learner.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert first.total == 80 and first.epoch == finished.config.epochs and first.held_out
    assert first.scores == second.scores
    assert [c.values for c in first.cases] == [c.values for c in second.cases]
    assert len(first.cases) == 4


def test_the_gallery_shows_what_training_would_compute(finished):
    """The predictions beside a pair are those of the method's own forward on its views, in evaluation mode."""
    from fastaugself.data.beton.format import Beton
    from fastaugself.report.samples import Sample, evenly_spaced, pack, read_stored
    from fastaugself.training.batch import make_batch

    found = predictions.evaluate_heads(finished, cases=4, count=1)
    with Beton(finished.config.data.val) as beton:
        samples = [Sample("", i, read_stored(beton, i)) for i in evenly_spaced(beton.labels_N, 4)]
    batch = pack(samples)
    views = make_batch(finished.config, batch, finished.config.epochs, torch.float32).views
    finished.learner.eval()
    with torch.no_grad():
        f1_BD, f2_BD = finished.learner.method(views).features
        said = torch.tanh(finished.learner.augself.predict(f1_BD, f2_BD)["crop"][:4])
    shown = torch.tensor([[guess for _, _, guess in case.values["crop"]] for case in found.cases])
    torch.testing.assert_close(shown, said, atol=1e-5, rtol=1e-4)
    for case in found.cases:  # and the true values are those that `views` shows for the same pair
        named = [d.value for d in case.pair.differences["crop"]]
        assert [true for _, true, _ in case.values["crop"]] == pytest.approx(named)


def test_chance_is_the_frequency_of_the_largest_class(finished):
    assert chance(finished.config) == 0.25


@pytest.mark.parametrize(("value", "text"), [(0.066, "50% below"), (0.132, "at"), (0.1325, "at"), (0.198, "50% above")])
def test_comparisons_in_words(value, text):
    assert compare(value, 0.132) == text


def test_the_later_of_two_lines_for_a_step_counts(tmp_path):
    (tmp_path / "m").write_text('{"step": 2, "x": 1}\n{"step": 1, "x": 2}\n{"step": 2, "x": 3}\nnonsense\n{"a": 1}\n')
    assert read_lines(tmp_path / "m") == [{"step": 1, "x": 2}, {"step": 2, "x": 3}]
    assert read_lines(tmp_path / "missing") == []


def test_final_losses_weigh_lines_by_their_steps():
    assert final_mean([(50, 9.0), (90, 5.0), (95, 1.0), (96, 7.0)]) == pytest.approx((3.6 * 5 + 5 * 1 + 1 * 7) / 9.6)
    assert final_mean([(3, 2.0)]) == 2


def test_a_last_line_over_few_steps_is_left_out_of_curves():
    lines = [{"step": step} for step in (10, 20, 30, 32)]
    assert without_stub(lines) == lines[:-1]
    assert without_stub(lines[:-1]) == lines[:-1]
    assert without_stub(lines[:1]) == lines[:1] and without_stub([]) == []


def test_scores_of_other_checks_have_curves_of_their_own(beton, tmp_path):
    """With their names, after those of `--data.val`, and in a comparison."""
    log = Log(every=4, tensorboard=False, check=(f"flowers={beton}",))
    data = Data(train=beton, val=beton, source="native", workers=1)
    trainer = train(config(beton, tmp_path / "run", data=data, log=log))
    page = written(trainer)
    titles = ["k-NN accuracy", "Linear probe", "Effective rank", "flowers: k-NN accuracy", "flowers: Effective rank"]
    places = [page.index(f"<h3>{title}</h3>") for title in titles]
    assert places == sorted(places) and page.count("largest class 25%") >= 4
    assert chance(trainer.config, "flowers") == 0.25 and chance(trainer.config, "gone") is None
    assert compared([read_run(tmp_path / "run")])["flowers/knn"] == "flowers: k-NN accuracy"
