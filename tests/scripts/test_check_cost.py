"""scripts/check_cost.py: both ways are measured in the same run and give the same scores."""

import json

import pytest

import check_cost


def arguments(monkeypatch, *words):
    sizes = ["--bank", "300", "--queries", "600", "--width", "20", "--classes", "5", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["check_cost.py", *sizes, *map(str, words)])


def test_every_part_is_measured_in_both_ways_in_every_round(monkeypatch, tmp_path, capsys):
    arguments(monkeypatch, "--json", tmp_path / "cost.json")
    check_cost.main()
    record = json.loads((tmp_path / "cost.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["knn", "rankme", "ridge"] and record["processes"] == 1
    for row in record["rows"]:
        assert len(row["before"]) == len(row["after"]) == 2 and min(row["before"] + row["after"]) > 0
        assert row["ratio"] == [b / a for b, a in zip(row["before"], row["after"], strict=True)]
    assert "of 8 processes, each" in capsys.readouterr().out


def test_scores_that_differ_are_an_error(monkeypatch):
    arguments(monkeypatch)
    monkeypatch.setattr(check_cost, "plain_ridge", lambda *_: 0.123)
    with pytest.raises(SystemExit, match=r"ridge: 0\.123 before"):
        check_cost.main()
