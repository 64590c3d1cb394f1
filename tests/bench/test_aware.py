"""`fastaugself bench aware`: every objective beside its base, in turn."""

import json

import pytest

from fastaugself.bench.aware import aware_benchmark, entries
from fastaugself.bench.harness import LeftOut
from fastaugself.bench.setup import Setup
from fastaugself.errors import UsageError

TINY = Setup(method="simclr", size=16, batch=8, width=4)


def test_costs_are_ratios_to_the_base_of_the_same_round(tmp_path, capsys):
    aware_benchmark(TINY, ("augself", "essl", "cassle"), tmp_path / "aware.json", rounds=2, seconds=0.01)
    found = json.loads((tmp_path / "aware.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["base", "augself", "essl", "cassle"] and found["left_out"] == []
    for name in ("augself", "essl", "cassle"):
        ratios = [a / b for a, b in zip(rows["base"]["rounds"], rows[name]["rounds"], strict=True)]
        assert found["ratios"][name]["min"] == pytest.approx(min(ratios))
    features = 32
    first, rest = 2 * features * 512 + 2 * 512, 512 * 512 + 2 * 512
    assert rows["augself"]["parameters"] == 2 * (first + rest) + 8 * 512 + 8
    assert rows["base"]["parameters"] == rows["cassle"]["parameters"] == 0
    assert "essl" in capsys.readouterr().out


def test_an_objective_that_does_not_fit_is_left_out_with_the_reason():
    flat = entries(Setup(method="simclr", size=16, batch=8, width=4).config(), ("essl",))
    assert [entry.name for entry in flat] == ["base", "essl"]
    off = entries(Setup(method="simclr", size=16, batch=7, width=4).config(), ("stl",))
    assert isinstance(off[-1], LeftOut) and "2" in off[-1].reason


def test_an_unknown_objective_is_refused():
    with pytest.raises(UsageError, match="unknown objective elephant; pass --objectives with some of augself"):
        aware_benchmark(TINY, ("elephant",))
