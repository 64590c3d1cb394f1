"""The benchmark's record, and that it refuses to time what does not compute the same."""

import json

import pytest
import torch

from fastaugself.bench import augment as bench
from fastaugself.bench.harness import Contestant, Row, measure, ratios
from fastaugself.errors import UsageError


@pytest.fixture(autouse=True)
def threads():
    """The benchmark sets torch to one thread."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few_views(monkeypatch):
    """Statistics of 256 small views of four photos scatter more than those of a real run."""
    monkeypatch.setattr(bench, "TOLERANCE", 0.5)


def run(tmp_path, **options):
    out = tmp_path / "results" / "augment.json"
    bench.augment_benchmark(json=out, size=32, photos=4, rounds=2, seconds=0.01, device="cpu", **options)
    return json.loads(out.read_text())


def test_record_has_the_machine_the_rounds_and_the_ratios(tmp_path):
    result = run(tmp_path)
    assert {"environment", "config", "rows", "ratios"} <= result.keys()
    rows = {row["name"]: row for row in result["rows"]}
    assert {"fastaugself-numba", "pil"} <= rows.keys()
    for row in rows.values():
        assert len(row["rounds"]) == 2 and min(row["rounds"]) <= row["views_per_s"] <= max(row["rounds"])
    for name, ratio in result["ratios"].items():
        ours, theirs = rows["fastaugself-numba"]["rounds"], rows[name]["rounds"]
        each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        assert (ratio["min"], ratio["max"]) == pytest.approx((each[0], each[-1]))
    assert result["config"]["threads"] == 1


def test_a_peer_that_computes_something_else_is_not_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "_pil", lambda images, size: (lambda: torch.zeros(8, 3, size, size), 8))
    result = run(tmp_path)
    assert "pil" not in {row["name"] for row in result["rows"]}
    assert "its views differ from ours" in capsys.readouterr().out


def test_photos_can_come_from_a_beton(tmp_path, beton):
    assert run(tmp_path, source=beton)["rows"]
    photos = bench.resized_photos(beton, 3)
    assert [photo.shape for photo in photos] == [(375, 500, 3)] * 3


def test_every_contestant_has_its_turn_in_every_round():
    calls = []
    contestants = [Contestant(name, lambda name=name: calls.append(name), 1) for name in "abc"]
    rows, failed = measure(contestants, device=torch.device("cpu"), rounds=3, seconds=0.0)
    assert failed == []
    assert calls[:3] == list("abc")
    assert [calls[3 + 3 * r : 6 + 3 * r] for r in range(3)] == [list("abc"), list("bca"), list("cab")]
    assert [len(row.rounds) for row in rows] == [3, 3, 3]


def test_a_contestant_that_fails_is_left_out_with_its_reason_and_ends_nothing():
    def fail():
        raise RuntimeError("no kernel image\nand more lines")

    late = iter([None, None])
    contestants = [
        Contestant("a", lambda: None, 1),
        Contestant("b", fail, 1),
        Contestant("c", lambda: next(late), 1),
    ]
    rows, failed = measure(contestants, device=torch.device("cpu"), rounds=3, seconds=0.0)
    assert [row.name for row in rows] == ["a"] and len(rows[0].rounds) == 3
    assert [(peer.name, peer.reason) for peer in failed] == [
        ("b", "RuntimeError: no kernel image"),
        ("c", "StopIteration: StopIteration"),
    ]


def test_ratios_are_round_by_round():
    rows = [Row("ours", [10.0, 30.0, 20.0]), Row("peer", [5.0, 5.0, 5.0])]
    assert ratios(rows, "ours") == {"peer": {"median": 4.0, "min": 2.0, "max": 6.0}}


def test_an_unknown_benchmark_is_refused_with_the_known_ones():
    from fastaugself.bench.__main__ import main

    with pytest.raises(UsageError, match="bench takes one of augment, got agument"):
        main(["agument"])
