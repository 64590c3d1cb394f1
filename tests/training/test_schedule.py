"""The learning rate over a run and its extensions; runs that are trained for longer than they were started for."""

import dataclasses
import json
import logging
import math

import pytest
import torch
from tiny_runs import ALONE, config, metrics, saved_weights, train

from fastaugself import CASSLE, Augment, Optim, ViewPolicy
from fastaugself.data.loader import Loader
from fastaugself.errors import UsageError
from fastaugself.runs import checkpoint
from fastaugself.training.batch import BatchMaker
from fastaugself.training.schedule import Schedule, Segment, extended
from fastaugself.training.trainer import Trainer
from fastaugself_kernels import COLUMNS, augment, sample_params
from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD


def cosine(peak, step, steps):
    return peak * 0.5 * (1 + math.cos(math.pi * step / steps))


def schedule(*segments, **options):
    return Schedule(
        Optim(lr=0.2, **options), batch_size=512, steps_per_epoch=10, segments=[Segment(*s) for s in segments]
    )


def test_one_segment_is_the_schedule_of_the_options():
    rate = schedule((4, "start"), warmup_epochs=1)
    assert rate(0) == pytest.approx(0.04) and rate(9) == pytest.approx(0.4)
    assert [rate(s) for s in (10, 25, 39)] == pytest.approx([cosine(0.4, s, 30) for s in (0, 15, 29)])


def test_the_cosine_ends_at_the_floor_which_is_scaled_like_the_peak():
    """Barlow Twins' formula: end * (1 - q) + peak * q with q half a cosine."""
    rate = schedule((4, "start"), min_lr=0.01, warmup_epochs=1)
    for step in (10, 17, 39):
        q = 0.5 * (1 + math.cos(math.pi * (step - 10) / 30))
        assert rate(step) == pytest.approx(0.02 * (1 - q) + 0.4 * q)
    assert rate(40) == pytest.approx(0.02) and rate(9) == pytest.approx(0.4)
    assert schedule((4, "start"), (6, "tail"), min_lr=0.01)(50) == pytest.approx(0.02, rel=0.05)


def test_a_restart_begins_at_the_peak_without_warm_up_and_spans_the_added_epochs():
    rate = schedule((4, "start"), (10, "restart"), warmup_epochs=1)
    assert rate(39) == pytest.approx(cosine(0.4, 29, 30))
    assert [rate(s) for s in (40, 70, 99)] == pytest.approx([cosine(0.4, s, 60) for s in (0, 30, 59)])


def test_a_tail_is_constant_and_not_nothing():
    rate = schedule((4, "start"), (6, "tail"), (8, "tail"), (9, "restart"))
    assert [rate(s) for s in range(40, 80)] == pytest.approx([0.004] * 40) and rate(80) == pytest.approx(0.4)
    rate = schedule((4, "start"), (6, "tail"), schedule="constant")
    assert rate(39) == rate(40) == rate(59) == pytest.approx(0.4)


def test_segments_only_grow():
    start = (Segment(4, "start"),)
    assert extended(start, 4, "no") == start == extended(start, 4, "restart")
    assert extended(start, 6, "tail") == (*start, Segment(6, "tail"))
    with pytest.raises(UsageError, match="--epochs 3 is less than the 4 of the run; pass --epochs 4 or more"):
        extended(start, 3, "tail")


@pytest.mark.parametrize("done", [3, 8])
@pytest.mark.parametrize("kind", ["restart", "tail"])
def test_a_running_or_finished_run_is_trained_for_longer_only_with_the_option(kind, done, beton, tmp_path):
    """8 steps are 2 epochs; the same command goes on and repeats nothing."""
    first = config(beton, tmp_path / "run", max_steps=done)
    train(first)
    longer = dataclasses.replace(first, epochs=4, max_steps=None)
    with pytest.raises(UsageError, match=r"--epochs 2, this command has 4; pass --extend restart .* or --extend tail"):
        train(longer)
    train(dataclasses.replace(longer, extend=kind, max_steps=10))
    trained = train(dataclasses.replace(longer, extend=kind))
    assert trained.global_step == 16 and len(metrics(tmp_path / "run")) == 16
    rates = [record["lr"] for record in metrics(tmp_path / "run")]
    peak = 0.1 * 16 / 256
    assert rates[:8] == pytest.approx([cosine(peak, s, 8) for s in range(8)])
    added = [cosine(peak, s, 8) for s in range(8)] if kind == "restart" else [max(cosine(peak, 7, 8), 0.01 * peak)] * 8
    assert rates[8:] == pytest.approx(added)
    with pytest.raises(UsageError, match=r"--epochs 4, this command has 2; pass the same options"):
        train(dataclasses.replace(first, max_steps=None))
    with pytest.raises(UsageError, match="--seed 0, this command has 1"):
        train(dataclasses.replace(longer, epochs=6, extend=kind, seed=1))


def test_a_run_that_is_interrupted_while_it_is_extended_ends_with_the_same_weights(beton, tmp_path):
    for name, stops in (("whole", (None,)), ("parts", (9, 13, None))):
        train(config(beton, tmp_path / name))
        for stop in stops:
            train(config(beton, tmp_path / name, epochs=4, extend="restart", max_steps=stop))
    whole, parts = (saved_weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(value.equal(parts[name]) for name, value in whole.items())


def test_a_run_with_every_schedule_and_clipping_resumes_bit_equal(beton, tmp_path):
    optim = Optim(
        name="adamw", lr=0.01, min_lr=1e-4, weight_decay=0.04, weight_decay_end=0.4, clip_grad=0.5, warmup_epochs=0.5
    )
    for name, stops in (("whole", (None,)), ("parts", (3, 6, None))):
        for stop in stops:
            train(config(beton, tmp_path / name, optim=optim, max_steps=stop))
    whole, parts = (saved_weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(value.equal(parts[name]) for name, value in whole.items())
    lines = metrics(tmp_path / "parts")
    assert [line["grad_norm"] for line in lines] == [line["grad_norm"] for line in metrics(tmp_path / "whole")]
    assert lines[-1]["lr"] == pytest.approx((1e-4 + 0.0099 * 0.5 * (1 + math.cos(math.pi * 5 / 6))) * 16 / 256)


def test_a_run_from_before_an_option_existed_resumes_with_its_default(beton, tmp_path):
    train(config(beton, tmp_path, max_steps=3))
    (path,) = checkpoint.checkpoints(tmp_path / "checkpoints")
    content = torch.load(path, weights_only=True)
    stored = json.loads(content["config"])
    del stored["optim"]["min_lr"], stored["optim"]["clip_grad"]
    torch.save({**content, "config": json.dumps(stored)}, path)
    clipped = config(beton, tmp_path, optim=Optim(lr=0.1, clip_grad=1.0))
    with pytest.raises(UsageError, match=r"--optim.clip-grad 0.0, this command has 1.0"):
        train(clipped)
    assert train(config(beton, tmp_path)).global_step == 8


# --- the size of the views --------------------------------------------------------------------------------------------

STAGES = ("0:8", "0.5:12", "0.75:16")  # of 8 steps: 4, 2 and 2


def test_views_of_a_stage_are_those_of_full_size_parameters_with_the_blur_in_proportion(beton, tmp_path):
    """At half the size sigma is halved; parameters and descriptors are those of full size."""
    options = config(
        beton, tmp_path, size_schedule=STAGES, num_local_crops=1, cassle=CASSLE(conditioning="concat"),
        local_crop=ViewPolicy.moco_v2(8), augment=Augment(blur_kernel=5),
    )  # fmt: skip
    with Loader(beton, batch_size=6, source="native") as loader:
        photos = next(iter(loader.epoch(0)))
    maker = BatchMaker(options, torch.float32)
    small, full = (maker(photos, 1, size).views for size in (8, 16))
    assert torch.equal(small.params_VBP, full.params_VBP) and small.condition_VBn.shape == full.condition_VBn.shape
    drawn = sample_params(photos.ids_B, photos.sizes_B2, options.all_policies, seed=0, epoch=1)
    assert float(drawn[..., COLUMNS.index("sigma")].max()) > 0.5
    source, norm = (photos.pixels, photos.offsets_B, photos.sizes_B2), {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    local = augment(*source, drawn[2:].contiguous(), size=8, blur_kernel=5, **norm)
    drawn[..., COLUMNS.index("sigma")] *= 0.5
    assert torch.equal(small.x_VBCHW, augment(*source, drawn[:2].contiguous(), size=8, blur_kernel=3, **norm))
    # Half of 8 px on the grid that 8 and 16 have in common is 8 px: the local crops stay what they are.
    assert torch.equal(small.local_LBCHW, local)
    assert full.x_VBCHW.shape[-1] == 16 and torch.equal(full.local_LBCHW, local)


@pytest.mark.parametrize("stops", [(3, 5, None), (4, 6, None)], ids=["within stages", "between stages"])
def test_a_run_with_a_schedule_of_sizes_resumes_bit_equal(stops, beton, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="fastaugself")
    for name, ends in (("whole", (None,)), ("parts", stops)):
        for end in ends:
            train(config(beton, tmp_path / name, size_schedule=STAGES, max_steps=end))
    whole, parts = (saved_weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(value.equal(parts[name]) for name, value in whole.items())
    assert [line["view_size"] for line in metrics(tmp_path / "parts")] == [8] * 4 + [12] * 2 + [16] * 2
    said = [record.message for record in caplog.records if record.message.startswith("views of")]
    assert said[:3] == [f"views of {size} px from step {step} on" for size, step in ((8, 1), (12, 5), (16, 7))]
    train(config(beton, tmp_path / "plain"))
    assert not all(value.equal(saved_weights(tmp_path / "plain")[name]) for name, value in whole.items())


def test_an_extended_run_keeps_its_stages_and_goes_on_at_full_size(beton, tmp_path):
    first = config(beton, tmp_path, size_schedule=STAGES)
    train(first)
    train(dataclasses.replace(first, epochs=4, extend="restart"))
    assert [line["view_size"] for line in metrics(tmp_path)] == [8] * 4 + [12] * 2 + [16] * 10


def test_every_size_is_compiled_before_training_and_none_later(beton, tmp_path, monkeypatch):
    from torch._dynamo.utils import counters

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **k: compile_(m, backend="eager", dynamic=False))
    torch._dynamo.reset()
    trainer = Trainer(config(beton, tmp_path, size_schedule=STAGES, compile="on"), ALONE)
    counters.clear()
    trainer.step_fn.must_compile = False
    trainer._probe_compiler()
    assert counters["stats"]["unique_graphs"] == 3
    with torch._dynamo.config.patch(error_on_recompile=True):
        trainer.fit()
    trainer.close()
    assert trainer.global_step == 8
