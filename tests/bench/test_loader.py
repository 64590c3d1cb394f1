"""`bench loader`: contestants that compute something else are not timed, and a round counts all of its work."""

import importlib.util
import json
import os
import re
import time

import numpy as np
import pytest
import torch

from fastaugself.bench import loader as bench
from fastaugself.bench.loader_peers import CONTESTANTS, Task, build, statistics
from fastaugself.bench.loader_photos import write_beton
from fastaugself.bench.remote import ContestantError, Racer, Remote, time_round
from fastaugself.data.background import Background
from fastaugself.errors import RunError, UsageError
from fastaugself_kernels import COLUMNS, ViewPolicy, augment, sample_params

needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")
linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="counts the work of processes in /proc")
DECODED, VIEWS = "fastaugself-native, decoded", "fastaugself-native"


# --- a small run ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@linux
def test_record_has_rows_checked_and_timed_in_rounds(tmp_path, monkeypatch, beton, capsys):
    few = {"mean": 0.5, "std": 0.5, "gray": 0.5, "detail": 0.5}  # statistics of 32 views vary
    monkeypatch.setattr(bench, "TOLERANCES", bench.TOLERANCES | few)
    compiled = [name for name in CONTESTANTS if "ffcv" in name]
    bench.loader_benchmark(
        beton,
        json=tmp_path / "loader.json",
        photos=20,
        batch=8,
        size=32,
        workers=(1,),
        storage=("jpeg",),
        rounds=2,
        seconds=0.01,
        without=(*compiled, "dataloader-albumentationsx"),
    )
    result = json.loads((tmp_path / "loader.json").read_text())
    assert {row["contestant"] for row in result["rows"]} == {DECODED, VIEWS, "dataloader-pil"}
    assert result["left_out"] == [] and result["config"]["photos"] == 16
    for row in result["rows"]:
        assert len(row["rounds"]) == len(row["rounds_per_core"]) == 2
        assert min(row["rounds_per_core"]) <= row["samples_per_s_per_core"] <= max(row["rounds_per_core"])
        assert row["memory_mb"] > 10 and row["mb_per_s"] > 0
    rows = {row["contestant"]: row["rounds_per_core"] for row in result["rows"]}
    each = sorted(a / b for a, b in zip(rows[VIEWS], rows["dataloader-pil"], strict=True))
    ratio = result["ratios"]["views_vs_dataloader_pil"]
    assert (ratio["min"], ratio["max"]) == pytest.approx((each[0], each[-1]))
    assert "views_vs_dataloader_pil" in capsys.readouterr().out


def test_both_storages_hold_the_same_photos(tmp_path, beton, photo_folder):
    for source in (beton, photo_folder):
        files, described = write_beton(source, tmp_path, 20, 8, ("jpeg", "raw"))
        tasks = [Task(path, 16, 8, 32, 1) for path in files.values()]
        jpeg, raw = (build(DECODED, task).check() for task in tasks)
        assert described["photos"] == 16 and len(jpeg["crc32"]) == 16
        assert jpeg["crc32"] == raw["crc32"]
        assert 0 < jpeg["pillow_error"] < 2


def test_wrong_sources_are_named(tmp_path):
    with pytest.raises(UsageError, match="holds no photos"):
        bench.loader_benchmark(tmp_path)
    with pytest.raises(UsageError, match=r"4 photos do not fill a batch of 64: pass --batch 4"):
        bench.loader_benchmark(photos=4)


# --- equivalence ------------------------------------------------------------------------------------------------------


def views_of(factor):
    random = torch.Generator().manual_seed(0)
    x = torch.rand(64, 3, 16, 16, generator=random) * factor
    return statistics([x])


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("ffcv-twice", {"crc32": {0: [1, 1], 1: [2, 2]}}, None),
        ("ffcv-twice", {"crc32": {0: [1, 1], 1: [2, 3]}}, "photo 1 has different pixels than ours"),
        ("ffcv-twice", {"crc32": {0: [1, 1]}}, "photo 1 has different pixels than ours"),
        ("fastaugself-ffcv", views_of(1) | {"crc32": [7], "oracle_error": 0.0}, None),
        (
            "fastaugself-ffcv",
            views_of(1) | {"crc32": [8], "oracle_error": 0.0},
            "differ from those of the other reader",
        ),
        ("fastaugself-ffcv", views_of(1) | {"crc32": [7], "oracle_error": 1e-3}, "oracle error is 0.001"),
        ("dataloader-pil", views_of(1), None),
        ("dataloader-pil", views_of(2), "mean of its views differs from ours"),
        ("dataloader-pil", views_of(1) | {"detail": 0.1}, "detail of its views differs"),
        ("dataloader-pil", views_of(1) | {"count": 32}, "32 views"),
        ("dataloader-pil", views_of(1) | {"shape": (3, 8, 8)}, r"\(3, 8, 8\)"),
        ("ffcv-twice, its crops", views_of(1), "mean of its views differs from ours"),
    ],
)
def test_a_contestant_that_computes_something_else_is_found(name, changes, reason):
    decoded = {"crc32": {0: [1], 1: [2]}, "crops": views_of(3)}
    found = bench.difference(name, changes, decoded, views_of(1) | {"crc32": [7]})
    assert found is None if reason is None else re.search(reason, found)


@pytest.mark.slow
@needs_ffcv
@pytest.mark.xdist_group("ffcv")
@pytest.mark.parametrize(
    ("name", "value"), [("brightness", 1.3), ("contrast", 0.6), ("saturation", 1.4), ("hue", -0.08), ("sigma", 1.3)]
)
def test_operations_in_ffcvs_design_are_the_oracles(name, value):
    """To one uint8 step: FFCV's operations pass uint8 images on."""
    from skimage import data

    from fastaugself.bench import ffcv_peers

    photo = np.ascontiguousarray(data.astronaut()[40:97, 90:153])
    sizes = torch.tensor([photo.shape[:2]], dtype=torch.int32)
    params = sample_params(torch.arange(1), sizes, (ViewPolicy.none(),), seed=0, epoch=0)
    row = dict.fromkeys(("top", "left", "flip"), 0.0) | {"height": 57.0, "width": 63.0, "jitter": 1.0, name: value}
    for column, number in row.items():
        params[..., COLUMNS.index(column)] = number
    oracle = augment(
        torch.from_numpy(photo.copy()).reshape(-1), torch.zeros(1, dtype=torch.int64), sizes, params,
        size=(57, 63), backend="reference", mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    changed = photo.copy()
    change = ffcv_peers.gaussian_blur if name == "sigma" else getattr(ffcv_peers, name)
    change(changed, np.float32(value))
    assert np.abs(changed.astype(float) - oracle[0, 0].permute(1, 2, 0).numpy() * 255).max() <= 1.0
    assert np.abs(changed.astype(float) - photo).mean() > 1


# --- ratios -----------------------------------------------------------------------------------------------------------


def row(name, storage, workers, per_core, wall):
    entry = {"contestant": name, "storage": storage, "workers": workers}
    return entry | {"rounds_per_core": per_core, "wall_rounds": wall}


def test_ratios_are_round_by_round_of_the_same_storage_and_reader():
    rows = [
        row("fastaugself-ffcv", "jpeg", 1, [80.0, 120.0, 90.0], [80.0, 110.0, 90.0]),
        row("fastaugself-native", "jpeg", 1, [70.0, 70.0, 70.0], [70.0, 70.0, 70.0]),
        row("fastaugself-native", "jpeg", 2, [70.0, 70.0, 70.0], [133.0, 140.0, 126.0]),
        row("dataloader-pil", "jpeg", 1, [10.0, 10.0, 10.0], [9.0, 9.0, 9.0]),
        row("dataloader-pil", "raw", 1, [20.0, 20.0, 20.0], [9.0, 9.0, 9.0]),
    ]
    found = bench.compare({str(i): each for i, each in enumerate(rows)})
    pil, second = found["views_vs_dataloader_pil"], found["second_core_views"]
    assert (pil["ours"], pil["median"], pil["min"], pil["max"]) == ("fastaugself-ffcv", 9.0, 8.0, 12.0)
    assert (second["ours"], second["median"]) == ("fastaugself-native", 1.9)
    assert found.keys() == {"views_vs_dataloader_pil", "second_core_views"}


# --- processes --------------------------------------------------------------------------------------------------------


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@linux
def test_a_round_counts_the_batches_made_in_it_and_not_prefetched_ones():
    """Batches of 20 ms of work, four of them prefetched before the round begins."""

    def batches():
        while True:
            burn(0.02)
            yield

    background = Background(batches(), depth=4, name="batches")
    try:
        found = time_round(Racer(iter(background), 8, dict), 0.1)
    finally:
        background.close()
    assert found.samples >= 5 * 8
    assert 0.018 < found.cpu / (found.samples / 8) < 0.026
    assert found.wall > 0.9 * found.cpu


def test_a_failure_in_a_process_is_reported_as_its_reason():
    for make, arguments, reason in ((os._exit, (3,), "exit code 3"), (build, ("nobody", None), "nobody|workers")):
        remote = Remote(make, arguments, 1)
        with pytest.raises(ContestantError, match=reason):
            remote.wait()
        remote.close()


def test_without_our_own_reader_nothing_is_timed(monkeypatch):
    class Broken:
        def start_check(self):
            pass

        def checked(self):
            raise ContestantError("broken")

    with pytest.raises(RunError, match=r"native reader did not run, .*broken"):
        bench.check_contestants({bench.Entry(DECODED, "jpeg", 1): Broken()}, [])
