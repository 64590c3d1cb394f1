"""What a part of the GPU round must have left: records, flat memory, tests that ran."""

import json

import pytest
from gpu_rounds import ROOT, a_round, go, say, verdicts

import gpu_parts
from gpu_parts import Part


def test_a_part_whose_results_are_wrong_has_failed(tmp_path, capsys):
    def verify():
        raise KeyError("rows")

    assert go(a_round(tmp_path, Part("one", 9, say(""), verify))) == 1
    assert verdicts(tmp_path)["one"]["reason"] == "its results: KeyError 'rows'"
    assert go(a_round(tmp_path, Part("two", 9, say(""), lambda: {"rates": {"a": 1234.5}, "list": [0.25]}))) == 0
    assert "    rates: a 1,234\n    list: 0.25\n" in capsys.readouterr().out


BENCHMARK = {"environment": {}, "config": {}, "rows": [{"name": "ours", "views_per_s": 8.0}], "ratios": {"pil": 2.0}}


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        ({"rows": []}, (), r"x\.json has no rows"),
        ({"rows": [{"name": "ours", "views_per_s": float("nan")}]}, (), r"x\.json has no rate for ours"),
        ({"config": None}, (), r"x\.json lacks config"),
        ({}, ("ratios", "emission"), r"x\.json lacks emission"),
    ],
)
def test_a_benchmarks_record_of_another_form_is_refused(tmp_path, change, keys, message):
    path = tmp_path / "x.json"
    content = {key: value for key, value in (BENCHMARK | change).items() if value is not None}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        gpu_parts.benchmark_figures(path, keys)
    path.write_text(json.dumps(BENCHMARK | {"left_out": [{"name": "kornia", "reason": "not there"}]}))
    assert gpu_parts.benchmark_figures(path, ()) == {
        "views_per_s": {"ours": 8.0},
        "ratios": {"pil": 2.0},
        "left_out": {"kornia": "not there"},
    }
    path.write_text("")
    with pytest.raises(ValueError, match=r"x\.json was not written"):
        gpu_parts.benchmark_figures(path, ())


def metrics_of(path, reserved, loss=1.0):
    """Two lines an epoch; the first of each has another reserve, which does not count."""
    lines = []
    for i, value in enumerate(reserved):
        for part in (0.5, 1.0):
            extra = 0.0 if part == 1.0 else 5.0
            line = {"step": len(lines) + 1, "epoch": i + part, "loss_ssl": loss, "pairs_per_s": 9.0, "data_wait": 0.1}
            lines.append(json.dumps(line | {"memory_reserved_gib": value + extra}))
    path.write_text("\n".join(lines) + "\n")


def test_a_reserve_that_is_flat_after_the_first_epochs_is_told_by_epoch(tmp_path):
    path = tmp_path / "training.jsonl"
    metrics_of(path, [3.0, 4.0, 4.0, 8.0, 8.0, 8.0, 8.1])
    found = gpu_parts.training_figures(path, cuda=True)
    assert found["reserved_gib_by_epoch"] == [3.0, 4.0, 4.0, 8.0, 8.0, 8.0, 8.1]
    assert found["reserved_growth"] == pytest.approx(0.1 / 8)


def test_a_reserve_that_grows_by_a_batch_an_epoch_fails(tmp_path):
    path = tmp_path / "training.jsonl"
    metrics_of(path, [3.0 + 0.15 * epoch for epoch in range(12)])
    with pytest.raises(ValueError, match=r"the reserved memory grows: 3\.00, 3\.15, .* GiB after the epochs"):
        gpu_parts.training_figures(path, cuda=True)
    assert gpu_parts.training_figures(path, cuda=False) == {"pairs_per_s": 9.0, "data_wait": 0.1}
    metrics_of(path, [3.0] * 5)
    with pytest.raises(ValueError, match="the reserved memory of 5 epochs does not show whether it grows"):
        gpu_parts.training_figures(path, cuda=True)
    metrics_of(path, [3.0] * 12, loss=float("nan"))
    with pytest.raises(ValueError, match="no finite number at step 1"):
        gpu_parts.training_figures(path, cuda=True)


def test_gpu_tests_that_were_all_skipped_are_no_success_on_a_gpu(tmp_path):
    log = tmp_path / "tests.log"
    log.write_text("....\n23 skipped in 1.9s\n")
    assert gpu_parts.outcome_figures(log, cuda=False) == {"skipped": 23}
    with pytest.raises(ValueError, match=r"no GPU test passed: 23 skipped in 1\.9s"):
        gpu_parts.outcome_figures(log, cuda=True)
    log.write_text("..\n21 passed, 2 skipped in 30s\n")
    assert gpu_parts.outcome_figures(log, cuda=True) == {"passed": 21, "skipped": 2}
    log.write_text("")
    with pytest.raises(ValueError, match="no GPU test skipped: the log is empty"):
        gpu_parts.outcome_figures(log, cuda=False)


def test_names_of_devices_are_those_of_the_launch_shapes():
    configs = pytest.importorskip("fastaugself_kernels.triton.configs")
    for name in ("NVIDIA H100 80GB HBM3", "AMD Instinct MI300X / OAM", "NVIDIA H200"):
        assert gpu_parts.slug(name) == configs.name_of(name)


@pytest.mark.parametrize(("name", "keys"), [("step", ["breakdown"]), ("e2e", ["data_wait"]), ("scale", ["ratios"])])
def test_the_records_of_the_training_benchmarks_have_the_form_that_the_round_reads(name, keys):
    (path, *_) = sorted((ROOT / "results").glob(f"*/{name}.json"))
    found = gpu_parts.benchmark_figures(path, keys)
    assert len(found["samples_per_s"]) > 1 and found["ratios"]


def test_measured_algorithms_are_compared_with_the_part_before(tmp_path):
    for name, rate in (("e2e", 100.0), ("cudnn", 125.0)):
        content = BENCHMARK | {"rows": [{"name": "training", "samples_per_s": rate}], "data_wait": 0.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert gpu_parts.cudnn_figures(tmp_path)["vs_e2e"] == {"training": 1.25}
