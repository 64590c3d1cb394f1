"""The protocols that train give the same on one process and on two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_eval import call

from fastaugself.runs import checkpoint

SCRIPT = Path(__file__).parents[1] / "helpers" / "evaluation_ranks.py"


@pytest.fixture(scope="module")
def both(run, beton, photo_folder, tmp_path_factory):
    """The folders of the results of one process, and of two."""
    root = tmp_path_factory.mktemp("processes")
    for split, numbers in (("train", range(11)), ("test", range(11, 16))):  # 5 test photos: one process has one more
        for name in ("chelsea", "coffee"):
            (root / "photos" / split / name).mkdir(parents=True)
            for i in numbers:
                data = (photo_folder / name / f"{i:02d}.jpg").read_bytes()
                (root / "photos" / split / name / f"{i}.jpg").write_bytes(data)
    commands = {
        "linear-sgd": ["--preset", "dino", "--lr", 0.1, 5, "--train-batch", 8, "--batch-size", 4],
        "finetune": ["--preset", "simclr", "--train-batch", 8],
    }
    words = []
    for count in (1, 2):
        for name, options in commands.items():
            out = root / str(count)
            fixed = ["--epochs", 3, "--out", out, "--device", "cpu", "--workers", 1, "--run", out / name]
            command = [name, run, "--data", root / "photos", *options, *fixed]
            if count == 1:
                assert call(*command) == 0
            else:
                words.append([str(word) for word in command])
    (root / "commands.json").write_text(json.dumps(words))
    subprocess.run([sys.executable, SCRIPT, beton, root / "commands.json"], check=True, timeout=240)
    return root / "1", root / "2"


def state(out, name):
    return checkpoint.load(checkpoint.checkpoints(out / name)[-1])["state"]


def rows(out, name):
    (path,) = out.glob(f"{name}*.json")
    return json.loads(path.read_text())["rows"]


def test_the_heads_of_linear_evaluation_are_equal_bit_by_bit(both):
    one, two = (state(out, "linear-sgd")["heads"] for out in both)
    assert all(torch.equal(one[name], two[name]) for name in one) and len(one) == 4
    assert rows(both[0], "linear-sgd") == rows(both[1], "linear-sgd")


def test_fine_tuned_weights_are_equal_up_to_rounding_batch_norm_included(both):
    one, two = (state(out, "finetune")["learner"] for out in both)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    assert rows(both[0], "finetune") == rows(both[1], "finetune")
