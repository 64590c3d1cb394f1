"""Monitoring of training: collapse warnings, the linear probe, traces, trackers, and reports of several runs."""

import json
import logging
import re
import sys
import types

import pytest
import torch
from tiny_runs import ALONE, config, metrics, train

from fastaugself import Data, Log, Optim
from fastaugself.aware.learner import feature_std
from fastaugself.errors import UsageError
from fastaugself.probes.ridge import ridge_accuracy, ridge_r2
from fastaugself.report.compare import report_runs
from fastaugself.training.trainer import Trainer
from fastaugself.training.watch import CollapseAlarm


@pytest.fixture()
def warnings(monkeypatch):
    lines = []
    for name in ("watch", "online", "tracker"):
        logger = logging.getLogger(f"fastaugself.training.{name}")
        monkeypatch.setattr(logger, "warning", lambda text, *values: lines.append(text % values))
    return lines


def test_feature_std_is_1_on_the_sphere_and_0_collapsed():
    random = torch.Generator().manual_seed(0)
    assert feature_std(torch.randn(4096, 64, generator=random)) == pytest.approx(1.0, abs=0.02)
    assert (
        feature_std(torch.ones(8, 64) * torch.arange(1, 9)[:, None]) < 1e-6
    )  # the same direction with different lengths


def test_a_collapse_is_announced_once(warnings):
    alarm = CollapseAlarm()
    for step, value in ((1, 0.4), (2, 0.002), (3, 0.001)):
        alarm.update(value, step)
    assert len(warnings) == 1 and "step 2" in warnings[0] and "0.0020" in warnings[0]


def test_a_collapsed_encoder_causes_both_warnings_in_a_run(beton, tmp_path, warnings):
    configuration = config(beton, tmp_path, data=Data(train=beton, val=beton, source="native", workers=1))
    trainer = Trainer(configuration, ALONE)
    pool = trainer.learner.method.backbone.avgpool
    pool.register_forward_hook(lambda module, inputs, output: torch.ones_like(output) + 0 * output)
    trainer.fit()
    trainer.close()
    assert any("nearly the same at step 1" in line for line in warnings)
    assert any("(effective rank 1.0)" in line for line in warnings)
    record = json.loads((tmp_path / "evaluations.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["linear"] <= 1 and record["rankme"] < 2


def test_the_linear_probe_agrees_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 12, generator=random)
    labels = torch.randint(5, (300,), generator=random)
    x = centres[labels] + torch.randn(300, 12, generator=random)
    found = ridge_accuracy(x[:200], labels[:200], x[200:], labels[200:])
    scaler = preprocessing.StandardScaler().fit(x[:200].double().numpy())
    indicators = torch.nn.functional.one_hot(labels, 5).double().numpy()
    scale = (200 / 199) ** 0.5  # torch's standard deviation divides by N - 1
    theirs = linear_model.Ridge(alpha=1.0).fit(scaler.transform(x[:200].numpy()) / scale, indicators[:200])
    predicted = theirs.predict(scaler.transform(x[200:].numpy()) / scale).argmax(1)
    assert found == pytest.approx((predicted == labels[200:].numpy()).mean())
    assert ridge_r2(x[:200], x[:200, :2], x[200:], x[200:, :2]) > 0.99


def test_a_trace_of_the_requested_steps_is_written(beton, tmp_path):
    train(config(beton, tmp_path, epochs=4, log=Log(every=8, tensorboard=False, profile=2)))
    events = json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    steps = {e["name"] for e in events if str(e.get("name", "")).startswith("ProfilerStep#")}
    assert len(steps) == 2 and any("convolution" in str(e.get("name")) for e in events)


def test_tensorboard_has_the_lines_of_metrics_jsonl_also_after_a_resume(beton, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in (2, 3):
        train(config(beton, tmp_path, max_steps=steps, log=Log(every=1)))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "loss_crop", "lr"):
        assert [(e.step, pytest.approx(e.value)) for e in events.Scalars(name)] == [
            (m["step"], m[name]) for m in metrics(tmp_path)
        ]


class Service(types.ModuleType):
    """A tracking package that records its calls."""

    def __init__(self, fails=False):
        super().__init__("trackio")
        self.lines, self.finished, self.fails = [], False, fails

    def init(self, **options):
        self.options = options
        return self

    def log(self, record, step):
        if self.fails:
            raise ConnectionError("no network")
        self.lines.append((step, record))

    def finish(self):
        self.finished = True


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_metrics_go_to_the_requested_tracker(beton, tmp_path, monkeypatch, name):
    service = Service()
    monkeypatch.setitem(sys.modules, name, service)
    train(config(beton, tmp_path / "mine", max_steps=2, log=Log(every=1, tensorboard=False, tracker=name)))
    assert [step for step, _ in service.lines] == [1, 2] and service.finished
    assert service.lines[0][1]["loss_ssl"] > 0
    assert service.options["project"] == "fastaugself" and service.options["name"] == "mine"
    assert service.options["config"]["batch_size"] == 16


def test_a_tracker_that_fails_is_logged_once_and_training_continues(beton, tmp_path, monkeypatch, warnings):
    monkeypatch.setitem(sys.modules, "wandb", Service(fails=True))
    trainer = train(config(beton, tmp_path, max_steps=2, log=Log(every=1, tensorboard=False, tracker="wandb")))
    assert trainer.global_step == 2
    assert [line for line in warnings if "tracker failed (ConnectionError: no network)" in line] == warnings


def test_a_tracker_that_is_missing_is_named(beton, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UsageError, match="pip install trackio"):
        train(config(beton, tmp_path, log=Log(tensorboard=False, tracker="trackio")))


def test_a_report_of_one_run_is_written_again_and_several_are_compared(beton, tmp_path):
    runs = [tmp_path / "plain", tmp_path / "<script>alert(1)</script>"]
    for run, lr in zip(runs, (0.1, 0.05), strict=True):
        train(config(beton, run, optim=Optim(lr=lr), max_steps=3))
    assert report_runs(runs[:1]) == runs[0] / "report.html"
    assert "MoCo v2 + AugSelf" in (runs[0] / "report.html").read_text()
    out = report_runs(runs, tmp_path / "both.html")
    page = out.read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    row = re.search(r"<tr><td><code>optim.lr</code></td>(.*?)</tr>", page).group(1)
    assert row == "<td>0.1</td><td>0.05</td>"
    assert "<code>batch-size</code>" not in page and page.count("<svg") >= 5
    with pytest.raises(UsageError, match=r"holds no config\.json; pass a run folder"):
        report_runs([tmp_path])
    with pytest.raises(UsageError, match="--out"):
        report_runs(runs[:1], out)
