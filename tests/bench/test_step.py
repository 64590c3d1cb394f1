"""The training benchmarks at a tiny size: their records, and that rungs which compute something else are not timed."""

import dataclasses
import json
import types

import pytest
import torch

from fastaugself.bench import step as bench
from fastaugself.bench.breakdown import FORWARD, Stopwatch, breakdown, in_words
from fastaugself.bench.e2e import busy_fraction, e2e_benchmark, kernel_intervals
from fastaugself.bench.scale import scale_benchmark, why
from fastaugself.bench.setup import Setup, noise_batch
from fastaugself.errors import RunError
from readme_tables import results_page

TINY = Setup(backbone="resnet18", width=4, size=16, batch=8, queue=64, device="cpu")
PARTS = {"copy", "augment", "query encoder", "heads and loss", "backward", "optimizer", "EMA and queue"}


@pytest.mark.parametrize("method", ["moco", "simsiam"])
def test_the_ladder_goes_from_loops_to_the_default(tmp_path, method):
    out = tmp_path / "step.json"
    bench.step_benchmark(dataclasses.replace(TINY, method=method), json=out, rounds=2, seconds=0.01)
    result = json.loads(out.read_text())
    names = [row["name"] for row in result["rows"]]
    lowest = ["loops", "+lists of tensors, no waits"] if method == "moco" else []
    middle = ["+loss without logits", "default"]
    other_views = [] if method == "moco" else ["default, views in one pass"]
    assert names == [*lowest, *middle, *other_views, "default, no AugSelf", "default, CASSLE"]
    assert all(len(row["rounds"]) == 2 and row["samples_per_s"] > 0 for row in result["rows"])
    assert set(result["ratios"]) == set(names) - {"default"}
    assert set(result["breakdown"]["eager"]) == (PARTS | {"key encoder"} if method == "moco" else PARTS)
    text = results_page(tmp_path)
    assert "| backward |" in text and "resnet18 of width 4 at 16 px, batches of 8 pairs" in text
    assert all(seconds >= 0 for seconds in result["breakdown"]["eager"].values()) and result["bound"] is None


def test_all_exact_rungs_take_the_same_steps():
    """For more steps than the benchmark checks, and to float32 precision."""
    config = TINY.config()
    rungs = bench.ladder(config, noise_batch(config, TINY.where), TINY.where, compiled=False)
    losses = [[float(rung.call()) for _ in range(3)] for rung in rungs if rung.exact]  # later steps amplify rounding
    assert len(losses) == 4
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], abs=2e-3)


def test_a_rung_that_computes_something_else_is_not_timed():
    same, other = (
        bench.Rung(name, lambda value=value: torch.tensor(value)) for name, value in (("a", 1.0), ("b", 1.5))
    )
    bench.check([same, same])
    with pytest.raises(RunError, match="b computes something else than a"):
        bench.check([same, other])


def test_training_end_to_end_is_compared_with_ready_views(tmp_path, beton):
    out = tmp_path / "e2e.json"
    e2e_benchmark(TINY, source=beton, json=out, steps=1, rounds=2)
    result = json.loads(out.read_text())
    whole, ready = result["rows"]
    ratio = result["ratios"]["training_vs_ready_views"]
    assert ratio["min"] == pytest.approx(min(a / b for a, b in zip(whole["rounds"], ready["rounds"], strict=True)))
    assert 0 <= result["data_wait"] <= 1 and result["device_idle"] is None
    text = results_page(tmp_path)
    assert "| training |" in text and "Training waited for data for" in text


@pytest.mark.slow
def test_scaling_on_two_processes_with_the_cost_of_all_reduce(tmp_path):
    out = tmp_path / "x" / "scale.json"
    tiny = dataclasses.replace(TINY, batch=4, queue=8)
    scale_benchmark(tiny, json=out, processes=(1, 2), norms=("sync",), rounds=1, seconds=0.01)
    result = json.loads(out.read_text())
    rates = {row["name"]: row["samples_per_s"] for row in result["rows"]}
    assert list(rates) == ["1 x sync", "2 x sync"]
    assert result["ratios"] == {"1 x sync": 1.0, "2 x sync": pytest.approx(rates["2 x sync"] / (2 * rates["1 x sync"]))}
    one, two = (row["breakdown"] for row in result["rows"])
    assert set(one) == PARTS | {"key encoder"} and set(two) == set(one) | {"all-reduce"}
    assert min(two.values()) >= 0 and two["backward"] > 0
    text = results_page(out.parent)
    assert "| 2 x sync |" in text and "| all-reduce | |" in text


def test_the_cause_of_failed_processes_is_not_torchruns_last_line():
    banner = """
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
=====
  exitcode  : -15 (pid: 7)  (SIGTERM)
Root Cause (first observed failure):
  exitcode  : -6 (pid: 8)  (SIGABRT)
=====
"""
    assert why("terminate called\n" + banner) == "exitcode  : -6 (pid: 8)  (SIGABRT)"
    traceback = "[rank1]: Traceback (most recent call last):\n[rank1]: ValueError: no such norm\n"
    assert why(traceback + banner) == "[rank1]: ValueError: no such norm"
    assert why("Killed\n") == "Killed" and why("") == "without output"


def test_the_breakdown_of_a_compiled_step_has_one_part_for_its_graph(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **k: compile_(m, backend="eager", dynamic=False))
    torch._dynamo.reset()
    config = TINY.config()
    parts = breakdown(config, noise_batch(config, TINY.where), TINY.where, torch.float32, repeats=2, compiled=True)
    inside = {"query encoder", "key encoder", "heads and loss"}
    assert set(parts) == (PARTS | {"key encoder"} | {FORWARD}) - inside
    assert all(f"{name} " in in_words("compiled", parts) for name in parts)


def test_busy_time_counts_overlaps_once():
    assert busy_fraction([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)]) == pytest.approx(4 / 6)
    assert busy_fraction([(0.0, 9.0), (1.0, 2.0)]) == 1.0
    assert busy_fraction([]) == 0.0


def test_a_stopwatch_sums_sections_of_the_same_name(monkeypatch):
    times = iter([0.0, 1.0, 3.0, 3.5])
    monkeypatch.setattr("fastaugself.bench.breakdown.time.perf_counter", lambda: next(times))
    watch = Stopwatch(torch.device("cpu"))
    for name in ("start", "a", "b", "a"):
        watch.mark(name)
    assert watch.read() == {"a": 1.5, "b": 2.0} and watch.read() == {}


def test_copies_are_no_work_of_the_device():
    def event(name, start, end, device="CUDA"):
        where, when = types.SimpleNamespace(name=device), types.SimpleNamespace(start=start, end=end)
        return types.SimpleNamespace(name=name, device_type=where, time_range=when)

    events = [
        event("Memcpy HtoD (Pinned -> Device)", 0, 9), event("_resize_kernel", 1, 2), event("Memset (Device)", 3, 4),
        event("aten::add", 5, 8, device="CPU"), event("sm90_xmma_fprop", 6, 7),
    ]  # fmt: skip
    assert kernel_intervals(events) == [(1, 2), (6, 7)]


def test_rungs_are_compared_without_tf32(monkeypatch):
    seen = []

    def call():
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return torch.tensor(1.0)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.backends.cuda.matmul.allow_tf32
    bench.check([bench.Rung("a", call), bench.Rung("b", call)])
    assert seen == [(False, False)] * 4
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32 == before
