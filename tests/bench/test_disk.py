"""`fastaugself bench disk` on small files."""

import json

from fastaugself.bench.disk import ORDERS, disk_benchmark, opening, write_hollow
from fastaugself.data.beton.format import Beton


def test_the_record_has_a_row_for_each_order_and_their_ratios(beton, tmp_path):
    disk_benchmark((beton,), batch_size=8, batches=4, rounds=2, json=tmp_path / "disk.json")
    record = json.loads((tmp_path / "disk.json").read_text())
    assert [row["name"] for row in record["rows"]] == list(ORDERS)
    assert all(row["samples_per_s"] > 0 and row["mb_per_s"] > 0 and len(row["rounds"]) == 2 for row in record["rows"])
    assert set(record["ratios"]) == {"quasi_random_vs_random", "sequential_vs_random"}


def test_opening_imagenet_sized_data_costs_a_second_and_100_mb_at_most(tmp_path):
    """1,281,167 samples in 20 files; FFCV's index of one takes 2.9 s and 607 MB."""
    row = opening(1_281_167, 20, rounds=1)
    assert row["peak_mb"] < 100
    assert row["cpu_seconds"] < 2  # 0.2 s on an idle machine


def test_hollow_files_have_a_complete_index(tmp_path):
    write_hollow(tmp_path / "hollow.beton", 100)
    with Beton(tmp_path / "hollow.beton") as beton:
        assert (len(beton), beton.sizes_N2[99].tolist(), beton.bytes_N[99]) == (100, [375, 500], 1000)
