"""Python's door: pretrain, open_run, load_recipe and callbacks, as a notebook or script uses them."""

import dataclasses
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import config, saved_steps

import fastaugself as fa
from fastaugself.cli.pretrain import run
from fastaugself.distributed import World
from fastaugself.errors import UsageError
from fastaugself.training import progress
from fastaugself.training.trainer import Trainer

ROOT = Path(__file__).parents[1]


def strings(configuration):
    """The same configuration with text in place of paths."""
    data = dataclasses.replace(configuration.data, train=str(configuration.data.train))
    return dataclasses.replace(configuration, run=str(configuration.run), data=data)


def test_a_run_from_python_and_what_it_tells(beton, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    options = dataclasses.replace(config(beton, tmp_path / "run"), data=fa.Data(train=[str(beton)], val=str(beton)))
    trained = fa.pretrain(strings(options) if isinstance(options.data.train, Path) else options)
    again = fa.open_run(str(tmp_path / "run"))
    assert again.config == trained.config == options and trained.step == 8
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert trained.metrics() == records and [r["step"] for r in records] == list(range(1, 9))
    assert trained.evaluations()[0]["step"] == 0 and 0 <= trained.evaluations()[-1]["knn"] <= 1
    assert repr(trained) == f"Run('{tmp_path / 'run'}': MoCo v2 + augself, resnet18, step 8)"
    assert "<td>MoCo v2 + augself, resnet18</td>" in trained._repr_html_() and ">knn<" in trained._repr_html_()
    (tmp_path / "run" / "report.html").unlink()
    assert trained.report() == tmp_path / "run" / "report.html" and trained.report().exists()
    assert trained.export(tmp_path / "out").parent == tmp_path / "out"
    encoder, exported = trained.load_encoder("cpu"), fa.load_encoder(tmp_path / "out", device="cpu")
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder.embed(x), exported.embed(x), rtol=0, atol=0)


def test_text_is_taken_where_paths_are(beton, tmp_path):
    options = config(beton, tmp_path / "run")
    assert strings(options) == options and isinstance(strings(options).run, Path)
    assert fa.Data(train=["a.beton", Path("b.beton")]).train == (Path("a.beton"), Path("b.beton"))
    assert fa.Pretrain(init="weights.pth").init == Path("weights.pth")
    for wrong in (lambda: fa.Data(train=3), lambda: fa.Pretrain(run=None), lambda: fa.Data(val=[None])):
        with pytest.raises(UsageError, match=r"must be a path, got (int|NoneType)"):
            wrong()


def test_the_same_call_resumes_and_resume_false_never_replaces_a_run(beton, tmp_path):
    options = config(beton, tmp_path / "run", max_steps=3)
    assert fa.pretrain(options).step == 3
    longer = dataclasses.replace(options, max_steps=5)
    with pytest.raises(UsageError, match=r"holds a run \(step-000000003.pt\).*pass resume=True .* or run='.*run-2'"):
        fa.pretrain(longer, resume=False)
    assert fa.pretrain(longer).step == 5
    assert fa.pretrain(dataclasses.replace(longer, run=f"{tmp_path}/run-2"), resume=False).step == 5


def test_the_callers_logging_is_as_it_was(beton, tmp_path):
    root, written = logging.getLogger("fastaugself"), io.StringIO()
    own = logging.StreamHandler(written)
    before = root.handlers, root.propagate, root.level
    root.handlers, root.propagate = [own], True
    root.setLevel(logging.WARNING)
    try:
        fa.pretrain(config(beton, tmp_path / "run", max_steps=1))
        assert root.handlers == [own] and root.propagate and root.level == logging.WARNING
        root.warning("still here")
        assert written.getvalue() == "still here\n"
        assert "checkpoint" not in written.getvalue() and (tmp_path / "run" / "train.log").read_text()
    finally:
        root.handlers, root.propagate = before[:2]
        root.setLevel(before[2])


def test_errors_are_exceptions_with_the_words_of_the_command_line(beton, tmp_path):
    with pytest.raises(UsageError, match=r"pretrain takes a Pretrain configuration, got str: pass load_recipe"):
        fa.pretrain("imagenet_moco_augself")
    with pytest.raises(ValueError, match="no such file or folder"):
        fa.pretrain(config(tmp_path / "nothing.beton", tmp_path / "run"))
    with pytest.raises(ValueError, match="pass a run folder"):
        fa.open_run(tmp_path)
    assert not (tmp_path / "run").exists()


def test_recipes_by_name_and_by_file(tmp_path):
    names = fa.list_recipes()
    assert set(names) == {path.stem for path in (ROOT / "recipes").glob("*.py")}
    assert names["imagenet_moco_augself"] == "MoCo v2 + AugSelf, ResNet-50, ImageNet-1k, 200 epochs."
    default = fa.load_recipe("imagenet_moco_augself")
    assert default.epochs == 200 and default.backbone.name == "resnet50"
    assert fa.load_recipe(ROOT / "recipes" / "imagenet_moco_augself.py") == default
    demo = fa.load_recipe("imagenet_moco_augself", preset="demo", epochs=3, run="runs/mine")
    assert (demo.epochs, demo.run, demo.view.size) == (3, Path("runs/mine"), 32)


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: fa.load_recipe("imagenet_moco_augsel"), "did you mean imagenet_moco_augself"),
     (lambda: fa.load_recipe("zzz"), "there are cifar100_seqjepa, "),
     (lambda: fa.load_recipe("nothing.py"), "no such recipe: nothing.py"),
     (lambda: fa.load_recipe("stl10", preset="demo2"), "has no preset 'demo2'; it has paper, "),
     (lambda: fa.load_recipe("stl10", epoch=3), "no field 'epoch'; did you mean epochs?"),
     (lambda: fa.load_recipe("stl10", epochs=0), "--epochs must be at least 1")],
)  # fmt: skip
def test_wrong_recipes_are_named(call, message):
    with pytest.raises(UsageError, match=message):
        call()


class Recorder(fa.Callback):
    """Remembers the calls."""

    every = 3

    def __init__(self):
        self.calls = []

    def on_start(self, trainer):
        self.calls.append(("start", trainer.global_step))

    def on_step(self, trainer, output):
        self.calls.append(("step", trainer.global_step))
        trainer.add_metrics({"mine/loss_twice": 2 * float(output.loss)})

    def on_checkpoint(self, trainer, path):
        assert path.exists()
        self.calls.append(("checkpoint", int(path.stem.removeprefix("step-"))))

    def on_check(self, trainer, record):
        self.calls.append(("check", record["step"]))

    def on_end(self, trainer):
        self.calls.append(("end", trainer.global_step))


def test_callbacks_run_every_n_steps_at_checkpoints_and_at_checks(beton, tmp_path):
    options = config(beton, tmp_path / "run", checkpoint=fa.Checkpoint(milestone=1))
    options = dataclasses.replace(options, data=dataclasses.replace(options.data, val=beton))
    recorder = Recorder()
    trained = fa.pretrain(options, callbacks=[recorder])
    assert recorder.calls == [
        ("start", 0), ("check", 0), ("step", 3), ("checkpoint", 4), ("step", 6), ("checkpoint", 8), ("check", 8),
        ("checkpoint", 8), ("end", 8),
    ]  # fmt: skip
    added = {r["step"]: r["mine/loss_twice"] / r["loss"] for r in trained.metrics() if "mine/loss_twice" in r}
    assert added == pytest.approx({3: 2.0, 6: 2.0}) and saved_steps(tmp_path / "run") == [4, 8]


def test_wrong_callbacks_are_refused_before_data_are_opened(tmp_path):
    every = Recorder()
    every.every = 0
    for callback, message in (
        (print, "must be instances of fastaugself.Callback"),
        (every, "every must be at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            Trainer(config(tmp_path / "nothing.beton", tmp_path / "run"), World.single(), callbacks=[callback])


def test_the_command_line_is_not_read_at_a_prompt(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(UsageError, match=r"call fastaugself.pretrain\(mine\(\)\)"):

        def mine():
            return fa.Pretrain()

        run(mine)


SCRIPT = """
import sys, torch.distributed as dist
import fastaugself as fa
from tiny_runs import config
_, beton, folder = sys.argv
for name in ("one", "two"):
    assert fa.pretrain(config(beton, f"{folder}/{name}", max_steps=2)).step == 2
assert not dist.is_initialized()
dist.init_process_group("gloo")
assert fa.pretrain(config(beton, f"{folder}/three", max_steps=2)).step == 2
assert dist.is_initialized()  # the caller's
dist.destroy_process_group()
print("done")
"""


@pytest.mark.slow
def test_under_torchrun_twice_in_one_process_and_in_the_callers_group(beton, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers")}
    arguments = [str(beton), str(tmp_path / "runs")]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stdout.count("done") == 2, result.stderr[-3000:]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"one", "two", "three"}


def test_a_notebook_shows_one_line_that_is_rewritten(monkeypatch):
    shown = []

    class Handle:
        def update(self, line):
            shown.append(repr(line))

    module = type(sys)("IPython.display")
    module.display = lambda line, display_id: shown.append(line._repr_html_()) or Handle()
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    bar = progress.NotebookBar(2, 8)
    bar.update(3, "loss <1>")
    bar.stop()
    assert '<progress value="2" max="8">' in shown[0] and shown[-1] == "step 3/8  loss <1>"
    bar.update(4, None)
    bar.stop()
    assert shown[-1] == "step 4/8  loss <1>"
