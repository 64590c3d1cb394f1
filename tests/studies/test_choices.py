"""The study of training choices: what differs between its runs, and its table by hand."""

import dataclasses
import math

import pytest

import choices
from choices_table import choices_table, difference
from fastaugself.data.beton.writer import BetonWriter


def test_runs_differ_in_their_choice_only(monkeypatch, tmp_path):
    monkeypatch.setattr(choices, "ensure_beton", lambda folder: folder.with_suffix(".beton"))
    base, *others = (choices.setting(tmp_path, tmp_path, epochs=3, seed=1, **c) for c in choices.CHOICES.values())
    assert (base.epochs, base.seed, base.view.size, base.num_local_crops) == (3, 1, choices.SIZE, 0)
    for config, changes in zip(others, list(choices.CHOICES.values())[1:], strict=True):
        assert config == dataclasses.replace(base, **changes) != base


def test_a_cost_is_measured_for_every_choice_and_size(monkeypatch, tmp_path):
    import numpy as np

    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        with BetonWriter(tmp_path / f"{split}.beton", 8) as writer:
            for i in range(8):
                writer.add(np.full((40, 40, 3), 30 * i, np.uint8), i % 2)
    monkeypatch.setattr(choices, "ensure_beton", lambda folder: folder.with_suffix(".beton"))
    monkeypatch.setattr(choices, "WARM", 1)
    monkeypatch.setattr(choices, "TIMED", 2)
    setting = choices.setting
    monkeypatch.setattr(
        choices, "setting", lambda *a, **k: dataclasses.replace(setting(*a, **k), batch_size=4, epochs=10)
    )
    found = choices.costs(tmp_path, tmp_path)
    assert found["cost"].keys() == {"baseline", "fast-moco", "local crops", "sizes", "16 px", "24 px"}
    assert all(len(values) == 2 and min(values) > 0 for values in found["seconds"].values())
    expected = 0.5 * found["cost"]["16 px"] + 0.4 * found["cost"]["24 px"] + 0.1
    assert found["cost"]["sizes"] == pytest.approx(expected) and found["cost"]["baseline"] == 1


def test_differences_are_paired_by_seed_with_students_interval():
    half = 4.303 * 1 / math.sqrt(3)  # the standard deviation of 1, 2, 3 is 1
    assert difference([1, 2, 3]) == f"+2.0 ({2 - half:+.1f} to {2 + half:+.1f})"
    assert difference([-1.25]) == "-1.2" and difference([]) == ""


def test_the_table_has_a_row_for_each_choice_and_budget():
    def row(choice, budget, seed, knn):
        return {"choice": choice, "budget": budget, "seed": seed, "epochs": 4, "knn": knn, "linear": knn, "rankme": 10}

    rows = [row("baseline", "pairs", s, 0.5 + 0.1 * s) for s in (0, 1)]
    rows += [row("sizes", "time", s, 0.6 + 0.1 * s) for s in (1, 0)] + [row("sizes", "pairs", 0, 0.4)]
    table = choices_table({"rows": rows, "costs": {"cost": {"baseline": 1.0, "sizes": 0.5}}})
    assert [cells[:6] for cells in table.rows] == [
        ("baseline", "", "1.00", "4", "2", "55.0"),
        ("sizes", "pairs", "0.50", "4", "1", "40.0"),
        ("sizes", "time", "0.50", "4", "2", "65.0"),
    ]
    assert table.rows[1][6] == "-10.0" and table.rows[2][6].startswith("+10.0 (+10.0")
