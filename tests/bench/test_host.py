"""Collectives of a step, counted by hand, and the record of `bench step --host`."""

import json

import pytest
import torch.distributed as dist

from fastaugself.bench import host
from fastaugself.cli.main import main
from fastaugself.methods import MoCo, SimCLR
from readme_tables import results_page

NORMS = 1 + 8 * 2 + 3  # of a ResNet-18: the stem's, two in each of eight blocks, three shortcuts
HEADS = 2  # AugSelf's heads are stacked: one norm after each of two hidden layers


@pytest.fixture
def few(monkeypatch):
    rows = {
        "MoCo v2, sync": (MoCo(queue=16, dim=8), "sync"),
        "MoCo v2, plain, shuffle": (MoCo(queue=16, dim=8, shuffle=True), "plain"),
        "SimCLR, sync": (SimCLR(dim=8), "sync"),
    }
    monkeypatch.setattr(host, "ROWS", rows)


def test_collectives_are_those_of_the_norms_the_loss_and_the_queue(few, tmp_path, capsys):
    path = tmp_path / "host.json"
    command = ["bench", "step", "--host", "--rounds", "1", "--processes", "4", "--backbone", "resnet18"]
    assert main([*command, "--json", str(path)]) in (0, None)
    assert "MoCo v2, plain, shuffle" in capsys.readouterr().out and not dist.is_initialized()
    rows = {(row["name"], row["processes"]): row for row in json.loads(path.read_text())["rows"]}
    assert all(
        row["collectives"] == {"gather": 0, "reduce": 0} and not row["buckets"]
        for (_, n), row in rows.items()
        if n == 1
    )
    # A gather of statistics per norm and forward pass (the key encoder's too), and one of the keys for the queue.
    assert rows["MoCo v2, sync", 4]["collectives"] == {"gather": 2 * NORMS + HEADS + 1, "reduce": NORMS + HEADS}
    # Images to the key encoder, its features back, and keys for the queue.
    assert rows["MoCo v2, plain, shuffle", 4]["collectives"] == {"gather": 3, "reduce": 0}
    # Both views through the encoder, the projector's norm, and the embeddings of both views.
    simclr = rows["SimCLR, sync", 4]["collectives"]
    assert simclr["gather"] == 2 * (NORMS + 1) + HEADS + 2 and rows["SimCLR, sync", 4]["buckets"] == 1
    assert "| SimCLR, sync | 4 |" in results_page(tmp_path)
    assert all(len(row["milliseconds"]) == 1 and row["milliseconds"][0] > 0 for row in rows.values())
