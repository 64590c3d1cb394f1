"""`bench augment`: its record and tables, and that contestants which compute something else are not timed."""

import json
import signal
import time

import numpy as np
import pytest
import torch

from fastaugself.bench import augment as bench
from fastaugself.bench import equivalence, ours, peers
from fastaugself.bench.batched_oracle import augment_batched
from fastaugself.bench.harness import Contestant, Row, deadline, measure, paired, ratios
from fastaugself.bench.limits import copy_contestant
from fastaugself.bench.nvidia_peers import color_matrices
from fastaugself.bench.tables.augment import augment_table
from fastaugself.bench.tables.rates import rates_table, ratios_table
from fastaugself.bench.tables.table import Table
from fastaugself.bench.work import Ready, Work, natural_photos, photos_of
from fastaugself.cli.main import main
from fastaugself.errors import RunError, UsageError
from fastaugself_kernels import ViewPolicy, augment, sample_params

CPU = torch.device("cpu")
FEW = {"pil": peers.pil, "torchvision-v1": peers.torchvision_v1, "oracle": ours.oracle}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small copy and few views; their statistics vary more than those of a real run, so the tolerances are larger."""
    before = torch.get_num_threads()  # the benchmark sets torch to one thread
    monkeypatch.setattr(bench, "copy_contestant", lambda device: copy_contestant(device, 1 << 16))
    monkeypatch.setattr(equivalence, "COMPARED", 64)
    for name in equivalence.TOLERANCES:
        monkeypatch.setitem(equivalence.TOLERANCES, name, 0.5)
    yield
    torch.set_num_threads(before)


def run(tmp_path, monkeypatch, makers=FEW, **options):
    out = tmp_path / "results" / "machine" / "augment.json"
    monkeypatch.setattr(peers, "ON_CPU", makers)
    bench.augment_benchmark(json=out, size=32, photos=4, rounds=2, seconds=0.01, device="cpu", **options)
    return json.loads(out.read_text())


# --- the record -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "copy_contestant", lambda device: copy_contestant(device, 1 << 16))
        patch.setattr(equivalence, "COMPARED", 64)
        patch.setattr(equivalence, "TOLERANCES", dict.fromkeys(equivalence.TOLERANCES, 0.5))
        patch.setattr(bench, "TOLERANCES", equivalence.TOLERANCES)
        folder = tmp_path_factory.mktemp("bench")
        return run(folder, patch, plot=folder / "augment.png") | {"plot": folder / "augment.png"}


def test_record_has_the_machine_the_rounds_and_the_ratios(result):
    assert {"environment", "config", "rows", "ratios"} <= result.keys()
    rows = {row["name"]: row for row in result["rows"]}
    assert [name for name, row in rows.items() if row["case"] == ""] == ["fastaugself-numba", *FEW]
    for row in rows.values():
        assert len(row["rounds"]) == 2 and min(row["rounds"]) <= row["views_per_s"] <= max(row["rounds"])
    for name, ratio in result["ratios"].items():
        case = rows[name]["case"]
        mine, theirs = rows["fastaugself-numba" + case]["rounds"], rows[name]["rounds"]
        each = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        assert (ratio["min"], ratio["max"]) == pytest.approx((each[0], each[-1]))
    assert result["config"]["threads"] == 1 and len(result["environment"]["load_average"]) == 3


def test_one_view_of_a_photo_is_a_separate_case(result):
    rows = {row["name"]: row for row in result["rows"]}
    assert {f"{name}, 1 view" for name in ("fastaugself-numba", *FEW)} <= rows.keys()
    assert rows["fastaugself-numba"]["views_per_call"] == 8 and rows["fastaugself-numba, 1 view"]["views_per_call"] == 4
    assert {"pil", "pil, 1 view"} <= result["ratios"].keys()


def test_bandwidth_is_that_of_the_bytes_that_must_move_beside_a_measured_copy(result):
    row, copy = result["rows"][0], result["copy"]
    # Crops of 20 to 100 % of 375 x 500 (those that fit are smaller on average), and 32 x 32 float32 of three channels.
    assert 3 * 375 * 500 * 0.4 < row["bytes_per_view"] - 3 * 4 * 32**2 < 3 * 375 * 500 * 0.6
    assert row["gb_per_s"] == pytest.approx(row["views_per_s"] * row["bytes_per_view"] / 1e9)
    percents = [100 * r * row["bytes_per_view"] / c for r, c in zip(row["rounds"], copy["rounds"], strict=True)]
    assert min(percents) <= row["percent_of_copy"] <= max(percents)
    assert len(copy["rounds"]) == 2 and row["launches"] is None  # kernels are counted on a GPU


def test_the_cost_of_targets_and_descriptors_has_separate_rows(result):
    names = [row["name"] for row in result["emission"]]
    assert names == ["AugSelf's targets", "targets, CASSLE's descriptors, colour shift"]
    for row in result["emission"]:
        low, high = row["percent"]["quartiles"]
        assert low <= row["percent"]["median"] <= high and row["pairs"] >= 8


def test_the_picture_has_ours_in_its_own_colour(result):
    from PIL import Image

    pixels = np.asarray(Image.open(result["plot"]).convert("RGB"))
    assert min(pixels.shape[:2]) > 200
    assert ((np.abs(pixels.astype(int) - (0x1F, 0x6F, 0xEB)) < 8).all(-1)).mean() > 0.01


def test_ours_is_several_times_faster_than_pil(tmp_path, monkeypatch):
    """About fifteen times: a regression of the compiled code shows here."""
    monkeypatch.setattr(peers, "ON_CPU", {"pil": peers.pil})
    out = tmp_path / "augment.json"
    bench.augment_benchmark(json=out, photos=4, rounds=3, seconds=0.05, device="cpu", quick=True)
    assert json.loads(out.read_text())["ratios"]["pil"]["max"] > 4


# --- contestants left out ---------------------------------------------------------------------------------------------


def left_out(result):
    return {peer["name"]: peer["reason"] for peer in result["left_out"]}


def test_a_peer_that_computes_something_else_is_not_timed(tmp_path, monkeypatch, capsys):
    makers = {
        "black": lambda work: Ready(lambda: torch.zeros(8, 3, work.size, work.size), 8),
        "large": lambda work: Ready(lambda: torch.zeros(8, 3, 64, 64), 8),
        "missing": peers.opencv,
        "slow": lambda work: time.sleep(9),
        "unwanted": peers.pil,
    }

    def not_installed(size):
        raise ImportError("pip install it")

    monkeypatch.setattr(peers.photo_peers, "opencv", not_installed)
    result = run(tmp_path, monkeypatch, makers, limit=0.3, without=("unwanted",))
    assert [row["name"] for row in result["rows"] if row["case"] == ""] == ["fastaugself-numba"]
    reasons = left_out(result)
    assert reasons.keys() == makers.keys()
    assert reasons["black"].startswith("its views differ from ours: std by")
    assert "its views are [8, 3, 64, 64]" in reasons["large"]
    assert reasons["missing"] == "pip install it"
    assert reasons["slow"] == "TimeoutError: took more than 0.3 s"
    assert reasons["unwanted"] == "not asked for"
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out" in shown
    assert ("black", "", "", "", f"left out: {reasons['black']}") in augment_table(result).rows


def test_views_that_differ_from_ours_are_told_apart():
    """With the real tolerances, on photos of natural size, only the same augmentation passes."""
    work = Work(natural_photos(32), 64, 2, ViewPolicy.moco_v2(64), CPU)
    expected = equivalence.statistics(equivalence.some_views(ours.fused(work), 1024))

    def wrong(policy):
        other = Work(work.photos, 64, 2, policy, CPU)
        found = equivalence.differences(
            equivalence.statistics(equivalence.some_views(ours.fused(other), 256)), expected
        )
        return {name for name, allowed in REAL.items() if found[name] > allowed}

    assert wrong(ViewPolicy.moco_v2(64)) == set()
    assert "gray" in wrong(ViewPolicy(64, gray=0.0))
    assert "blur" in wrong(ViewPolicy(64, blur=0.0)) and "blur" in wrong(ViewPolicy(64, blur=1.0))
    assert "std" in wrong(ViewPolicy(64, jitter=1.0, contrast=1.0, brightness=1.0))
    assert wrong(ViewPolicy(64, scale=(0.02, 0.1)))


REAL = dict(equivalence.TOLERANCES)


def test_ours_is_compared_with_the_oracle(monkeypatch):
    work = Work(natural_photos(4), 32, 2, ViewPolicy(32, blur=0), CPU)
    assert ours.check_fused(work) <= 1e-5
    real = ours.augment

    def wrong(*args, backend="auto", **options):
        return real(*args, backend=backend, **options) * (1 if backend == "reference" else 1.001)

    monkeypatch.setattr(ours, "augment", wrong)
    with pytest.raises(RunError, match="differ from the oracle"):
        ours.check_fused(work)


def test_other_forms_of_the_oracle_are_compared_with_it():
    work = Work(natural_photos(9), 48, 2, ViewPolicy(48), CPU)
    ready = ours.oracle_batched(work)
    assert ready.units == 16 and ready.error < 1e-4 and ready.call().shape == (16, 3, 48, 48)
    with pytest.raises(ValueError, match="differs from the oracle by"):
        ours._batched(work, lambda pixels, rows, *_, size: torch.zeros(len(rows), 3, size, size))


def test_the_oracle_on_batches_makes_the_oracles_views():
    photos, sizes = np.stack(natural_photos(6)), torch.tensor([[375, 500]] * 6)
    pixels = torch.from_numpy(photos)
    params = sample_params(torch.arange(6), sizes, (ViewPolicy(48, jitter=1.0),), seed=4, epoch=0)
    options = dict(size=48, rounding="none", mean=(0, 0, 0), std=(1, 1, 1), backend="reference")
    expected = augment(pixels, None, sizes, params, **options)[0]
    got = augment_batched(pixels, params[0], torch.zeros(3), torch.ones(3), size=48, rounding=False)
    assert (got - expected).abs().max() <= 1e-4


def test_linear_maps_of_colours_leave_gray_gray_and_have_the_right_probabilities():
    torch.manual_seed(0)
    maps = color_matrices(4000, CPU)
    assert maps.shape == (4000, 3, 4) and maps.is_contiguous()
    gray = (maps[:, :, :3] @ torch.full((3, 1), 100.0) + maps[:, :, 3:])[..., 0]
    assert (gray - gray.mean(1, keepdim=True)).abs().max() < 1e-2
    identical = (maps - torch.eye(3, 4)).abs().amax((1, 2)) < 1e-6
    colourless = (maps[:, 0] - maps[:, 1]).abs().amax(1) < 1e-6
    assert identical.float().mean() == pytest.approx(0.2 * 0.8, abs=0.03)
    assert colourless.float().mean() == pytest.approx(0.2, abs=0.03)


def test_photos_can_come_from_a_beton(beton):
    photos = photos_of(beton, 70)  # more than it holds: they repeat
    assert [photo.shape for photo in photos] == [(375, 500, 3)] * 70
    assert np.array_equal(photos[0], photos[64]) and not np.array_equal(photos[0], photos[1])


def test_the_cases_of_a_gpu_are_the_batches_and_types_of_the_goals():
    cases = {case.suffix: case.work for case in bench.peer_cases(torch.device("cuda"), 224, 512, None, quick=False)}
    assert {suffix: (work.batch, work.views) for suffix, work in cases.items()} == {
        "": (512, 2),
        ", batch 32": (32, 2),
        ", 1 view": (512, 1),
        ", bfloat16": (512, 2),
        ", bfloat16, batch 32": (32, 2),
        ", no resize": (64, 1),
    }
    assert cases[", bfloat16"].dtype == torch.bfloat16 and cases[""].dtype == torch.float32
    work = cases[", no resize"]
    params = sample_params(torch.arange(500), torch.tensor([[256, 256]] * 500), work.policies, seed=0, epoch=0)[0]
    assert {photo.shape for photo in work.photos} == {(256, 256, 3)}
    assert (params[:, 2:4] == 224).all() and params[:, 0].unique().tolist() == list(range(33))
    assert (params[:, 6] == 1).all() and (params[:, 11] == 0).all() and (params[:, 13] == 0).all()


def test_kernels_copies_and_fills_are_the_launches(monkeypatch):
    from types import SimpleNamespace

    from fastaugself.bench import limits

    calls = []
    kinds = ["CUDA", "CPU", "CUDA", "CPU", "CUDA"]
    events = [SimpleNamespace(device_type=SimpleNamespace(name=kind)) for kind in kinds]

    class Profile:
        def __enter__(self):
            calls.append("profile")
            return SimpleNamespace(events=lambda: events)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(limits.torch.profiler, "profile", lambda **_: Profile())
    monkeypatch.setattr(limits.torch.cuda, "synchronize", lambda device: calls.append("wait"))
    assert limits.launches(lambda: calls.append("call"), torch.device("cuda")) == 3
    assert calls == ["call", "wait", "profile", "call", "wait"]  # the first call may compile and is not counted
    assert limits.launches(lambda: None, CPU) is None


# --- timing -----------------------------------------------------------------------------------------------------------


def test_every_contestant_runs_in_every_round():
    calls = []
    contestants = [Contestant(name, lambda name=name: calls.append(name), 1) for name in "abc"]
    rows, failed = measure(contestants, device=CPU, rounds=3, seconds=0.0)
    assert failed == []
    assert calls[:3] == list("abc")
    assert [calls[3 + 3 * r : 6 + 3 * r] for r in range(3)] == [list("abc"), list("bca"), list("cab")]
    assert [len(row.rounds) for row in rows] == [3, 3, 3]


def test_a_contestant_that_fails_is_left_out_and_the_others_continue():
    def fail():
        raise RuntimeError("no kernel image\nand more lines")

    late = iter([None, None])
    contestants = [
        Contestant("a", lambda: None, 1),
        Contestant("b", fail, 1),
        Contestant("c", lambda: next(late), 1),
    ]
    rows, failed = measure(contestants, device=CPU, rounds=3, seconds=0.0)
    assert [row.name for row in rows] == ["a"] and len(rows[0].rounds) == 3
    assert [(peer.name, peer.reason) for peer in failed] == [
        ("b", "RuntimeError: no kernel image"),
        ("c", "StopIteration: StopIteration"),
    ]


def test_ratios_are_round_by_round():
    rows = [Row("ours", [10.0, 30.0, 20.0]), Row("peer", [5.0, 5.0, 5.0])]
    assert ratios(rows, "ours") == {"peer": {"median": 4.0, "min": 2.0, "max": 6.0}}


def test_paired_measurements_detect_twice_the_work():
    def work(n):
        return lambda: sum(i * i for i in range(n))

    times = paired(work(20_000), work(40_000), device=CPU, seconds=0.0)
    assert len(times) == 8 and 1.5 < sorted(times)[4] < 2.7


def test_a_deadline_interrupts_its_own_block_only():
    with pytest.raises(TimeoutError, match="took more than"), deadline(0.05):
        time.sleep(5)
    with deadline(9):
        with deadline(0.05):
            pass
        time.sleep(0.08)
        assert 8 < signal.getitimer(signal.ITIMER_REAL)[0] <= 9  # the outer one is restored


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "peer_cases", lambda *_: pytest.fail("measured first"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "augment.json"):
        with pytest.raises(UsageError, match="cannot be written"):
            bench.augment_benchmark(json=out, device="cpu")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_is_markdown():
    assert Table(("", "a"), [("x", "1")]).markdown() == "| | a |\n| --- | --: |\n| x | 1 |\n"


def test_records_of_the_other_benchmarks_have_tables_too():
    record = {
        "rows": [{"name": "ours", "samples_per_s": 1234.4, "rounds": [1000, 1500]}],
        "ratios": {"ours_vs_theirs": {"median": 2.345, "min": 2.0, "max": 12.34}, "plain": 3, "other": "words"},
        "left_out": [{"name": "theirs", "reason": "pip install theirs"}],
    }
    assert rates_table(record).rows == [
        ("ours", "1,234", "1,000 to 1,500"),
        ("theirs", "", "left out: pip install theirs"),
    ]
    assert rates_table(record).head == ("", "samples/s", "rounds")
    assert ratios_table(record).rows == [("ours_vs_theirs", "2.35", "2.00 to 12.3"), ("plain", "3.00", "")]


def test_an_unknown_benchmark_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "agument"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and "bench takes one of augment, loader" in error and "did you mean augment?" in error
