"""Resuming, configurations, precision and compilation of training runs, and refusals of wrong use."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import ALONE, config, metrics, train

from fastaugself import Data, Log, MoCo, Optim, Pretrain
from fastaugself.cli.pretrain import parse
from fastaugself.config.serialize import differences, from_dict, to_dict
from fastaugself.distributed import World
from fastaugself.errors import RunError, UsageError
from fastaugself.models.resnet import ResNet
from fastaugself.runs import checkpoint
from fastaugself.training.optim import learning_rate
from fastaugself.training.setup import half_precision_warning
from fastaugself.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "imagenet_moco_augself.py"


def assert_equal_state(a, b):
    flat_a, flat_b = (dict(_flatten(t.state())) for t in (a, b))
    assert flat_a.keys() == flat_b.keys()
    for name, value in flat_a.items():
        same = torch.equal(value, flat_b[name]) if isinstance(value, torch.Tensor) else value == flat_b[name]
        assert same, name


def _flatten(value, prefix=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _flatten(item, f"{prefix}.{i}")
    else:
        yield prefix, value


def test_a_run_in_two_parts_equals_one_in_one_part(beton, tmp_path):
    whole = train(config(beton, tmp_path / "whole"))
    train(config(beton, tmp_path / "parts", max_steps=5))
    parts = train(config(beton, tmp_path / "parts"))
    assert whole.global_step == parts.global_step == 2 * whole.steps_per_epoch == 8
    assert_equal_state(whole, parts)
    timeless = [
        {k: v for k, v in m.items() if k not in ("pairs_per_s", "data_wait")} for m in metrics(whole.config.run)
    ]
    again = [{k: v for k, v in m.items() if k not in ("pairs_per_s", "data_wait")} for m in metrics(parts.config.run)]
    assert timeless == again
    assert [m["step"] for m in again] == list(range(1, 9))


def test_dropout_draws_the_same_after_a_resume(beton, tmp_path, monkeypatch):
    forward = ResNet.forward
    monkeypatch.setattr(ResNet, "forward", lambda self, x: F.dropout(forward(self, x), 0.3, self.training))
    whole = train(config(beton, tmp_path / "whole", max_steps=4))
    train(config(beton, tmp_path / "parts", max_steps=3))
    torch.manual_seed(1234)
    assert_equal_state(whole, train(config(beton, tmp_path / "parts", max_steps=4)))
    other = train(config(beton, tmp_path / "other", max_steps=4, seed=1))
    assert metrics(other.config.run)[0]["loss"] != metrics(whole.config.run)[0]["loss"]


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(beton, tmp_path):
    whole = train(config(beton, tmp_path / "whole"))
    run = tmp_path / "damaged"
    train(config(beton, run, max_steps=3))
    train(config(beton, run, max_steps=5))
    newest = checkpoint.checkpoints(run / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    again = train(config(beton, run))
    assert_equal_state(whole, again)
    assert [m["step"] for m in metrics(run)] == list(range(1, 9))


def test_a_run_of_another_configuration_is_refused_with_the_option(beton, tmp_path):
    train(config(beton, tmp_path, max_steps=1))
    with pytest.raises(UsageError, match=r"holds a run with --optim.lr 0.1, this command has 0.25"):
        Trainer(config(beton, tmp_path, optim=Optim(lr=0.25)), ALONE)
    train(
        config(beton, tmp_path, max_steps=2, log=Log(every=2, tensorboard=False))
    )  # --log.every does not change results


def test_bf16_losses_are_close_to_fp32(beton, tmp_path):
    train(config(beton, tmp_path / "fp32", optim=Optim(lr=0.01), max_steps=3))
    train(config(beton, tmp_path / "bf16", optim=Optim(lr=0.01), max_steps=3, precision="bf16"))
    for a, b in zip(metrics(tmp_path / "fp32"), metrics(tmp_path / "bf16"), strict=True):
        assert b["loss_ssl"] == pytest.approx(a["loss_ssl"], abs=0.05)
        assert b["loss_color"] == pytest.approx(a["loss_color"], abs=0.02)


def test_compiled_step_equals_the_eager_one(beton, tmp_path, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **k: compile_(m, backend="aot_eager", fullgraph=True, **k))
    eager = train(config(beton, tmp_path / "eager", max_steps=3))
    compiled = train(config(beton, tmp_path / "compiled", max_steps=3, compile="on"))
    assert compiled.step_fn.compiled
    for a, b in zip(metrics(eager.config.run), metrics(compiled.config.run), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)


def test_batch_larger_than_the_data_and_bad_splits_are_refused(beton, tmp_path):
    with pytest.raises(UsageError, match="64"):
        Trainer(config(beton, tmp_path, batch_size=128, method=MoCo(queue=128)), ALONE)
    with pytest.raises(UsageError, match=r"--batch-size 16 must be a multiple of the number of processes 3"):
        Trainer(config(beton, tmp_path), World(0, 3, torch.device("cpu")))
    assert not (tmp_path / "checkpoints").exists()


def test_learning_rate_is_warmup_then_half_a_cosine():
    optim = Optim(lr=0.1, warmup_epochs=1)
    rates = [learning_rate(optim, s, steps_per_epoch=10, epochs=5, batch_size=512) for s in range(50)]
    assert rates[0] == pytest.approx(0.02) and rates[9] == pytest.approx(0.2) and rates[10] == pytest.approx(0.2)
    assert rates[30] == pytest.approx(0.1)
    by_epoch = Optim(lr=0.1, schedule_by="epoch")
    assert learning_rate(by_epoch, 19, steps_per_epoch=10, epochs=2, batch_size=256) == pytest.approx(0.05)


def test_configuration_survives_its_file(tmp_path):
    original = config(Path("a.beton"), tmp_path)
    text = json.dumps(to_dict(original))
    assert from_dict(Pretrain, json.loads(text)) == original
    assert differences(to_dict(original), json.loads(text)) == []
    several = dataclasses.replace(original, data=Data(train=(Path("a.beton"), Path("b.beton")), order="quasi-random"))
    text = json.dumps(to_dict(several))
    assert from_dict(Pretrain, json.loads(text)) == several
    # The files that hold the photos may change when a run is resumed, the order of the photos may not.
    assert differences(to_dict(original), json.loads(text)) == [("data.order", "random", "quasi-random")]


def test_the_command_line_takes_one_file_several_or_a_pattern():
    for given, expected in (
        (["a"], Path("a")),
        (["a", "b"], (Path("a"), Path("b"))),
        (["s/*.beton"], Path("s/*.beton")),
    ):
        assert parse(Pretrain, {}, ["--data.train", *given, "--epochs", "2"]).data.train == expected


@pytest.fixture
def halves(beton, tmp_path):
    """The photos of `beton` in two files."""
    from fastaugself.data.beton.format import Beton
    from fastaugself.data.beton.writer import BetonWriter

    with Beton(beton) as whole:
        for name, first in (("a", 0), ("b", 32)):
            with BetonWriter(tmp_path / f"{name}.beton", 32) as writer:
                for i in range(first, first + 32):
                    writer.add(whole.read(i), int(whole.labels_N[i]))
    return tmp_path


def test_a_run_resumes_with_its_photos_in_several_files_but_not_in_another_order(beton, halves, tmp_path):
    whole = config(beton, tmp_path / "whole", epochs=1)
    parts = config(halves / "*.beton", tmp_path / "parts", epochs=1)
    assert_equal_state(train(whole), train(parts))
    stopped = config(beton, tmp_path / "stopped", epochs=1, max_steps=2)
    train(stopped)
    swapped = (halves / "b.beton", halves / "a.beton")
    for files, ends in ((swapped, False), (halves / "*.beton", True)):
        again = dataclasses.replace(stopped, max_steps=None, data=Data(train=files, source="native", workers=1))
        if ends:
            assert_equal_state(train(again), Trainer(whole, ALONE))
        else:
            with pytest.raises(
                UsageError, match=r"trained on other photos than .*, or on the same photos in another order"
            ):
                Trainer(again, ALONE)


def test_corrupt_photos_are_counted_in_the_metrics_and_too_many_end_the_run(halves, tmp_path):
    from fastaugself.data.beton.format import Beton

    with Beton(halves / "b.beton") as beton, (halves / "b.beton").open("r+b") as stream:
        for sample in (3, 4):
            stream.seek(int(beton.pointers_N[sample]))
            stream.write(bytes(200))
    base = config(halves / "*.beton", tmp_path / "run", epochs=1)
    train(dataclasses.replace(base, data=dataclasses.replace(base.data, max_corrupt=0.05)))
    assert metrics(tmp_path / "run")[-1]["corrupt"] == 2
    strict = dataclasses.replace(base.data, max_corrupt=0.02)
    with pytest.raises(RunError, match=r"b.beton: sample [34], .* 2 of 64 samples \(3\.12%\) are corrupt"):
        train(dataclasses.replace(base, run=tmp_path / "strict", data=strict))


def test_presets_and_files_give_the_defaults_that_options_change(tmp_path):
    def recipe():
        return Pretrain(epochs=7)

    presets = {"demo": lambda: Pretrain(epochs=3, seed=5)}
    assert parse(recipe, presets, []).epochs == 7
    changed = parse(recipe, presets, ["--preset", "demo", "--optim.lr", "0.5"])
    assert (changed.epochs, changed.seed, changed.optim.lr) == (3, 5, 0.5)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(changed)))
    assert parse(recipe, presets, ["--from", str(tmp_path / "config.json")]) == changed
    with pytest.raises(UsageError, match="--preset fast is unknown; this recipe has paper, demo"):
        parse(recipe, presets, ["--preset", "fast"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.train", "missing"], "missing"),
        (["--backbone.name", "resnet51"], "pass --backbone.name resnet50"),
        (["--bakbone.name", "resnet18"], "did you mean --backbone.name?"),
        (["--view.flip", "1.5"], "0 <= probability <= 1, got 1.5"),
        (["--method.queue", "100"], "pass --method.queue 96"),
        (["--batch-size", "4096", "--method.queue", "4096"], "4096"),
        (["--optim.implementation", "apex"], "PyPI's `apex` is an unrelated package"),
        (["--device", "cuda"], "--device cpu"),
        (["--from", "nothing.json"], "nothing.json"),
    ],
    ids=["folder", "backbone", "option", "probability", "queue", "batch", "apex", "device", "from"],
)
def test_wrong_use_is_one_line_and_exit_code_2(beton, tmp_path, options, message, monkeypatch, capsys):
    if options[0] == "--device" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    start = [] if options[0] == "--from" else ["--preset", "demo", "--method.queue", "32", "--batch-size", "16"]
    mine = ["--data.train", str(beton), "--data.val", "None", "--data.source", "native", "--run", "run"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [RECIPE.name, *start, *mine, *options])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(RECIPE), run_name="__main__")
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error
    assert [line for line in error.splitlines() if line.startswith("error: ")] == error.splitlines()[-1:], error
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("has", "dtype", "device", "warned"),
    [
        ({"avx512_bf16": True}, torch.bfloat16, "cpu", False),
        ({"avx2": True, "avx512_bf16": False}, torch.bfloat16, "cpu", True),
        ({"avx512_bf16": True}, torch.float16, "cpu", True),
        ({}, torch.float32, "cpu", False),
        ({}, torch.bfloat16, "cuda", False),
    ],
)
def test_half_precision_that_a_cpu_emulates_is_warned_about(has, dtype, device, warned, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    said = half_precision_warning(dtype, torch.device(device))
    assert ("pass --precision fp32" in said) == warned


def test_the_warning_comes_before_the_first_step(beton, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    Trainer(config(beton, tmp_path, precision="bf16"), ALONE).close()
    assert "no instructions for bfloat16" in caplog.text
