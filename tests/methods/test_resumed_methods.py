"""Runs of the methods with a state of their own, stopped and resumed, have the bits of uninterrupted runs."""

import pytest
import tiny_runs
import torch

from fastaugself import DINO, NNCLR, LeJEPA, ViewPolicy

LOCAL = {"num_local_crops": 2, "local_crop": ViewPolicy(size=12, scale=(0.05, 0.3))}
STATE = {
    "dino": (DINO(dim=8, hidden=16, prototypes=6, freeze_steps=3, teacher_temperature=0.07, teacher_warmup=0.5),
             {"center_K", "teacher_temperature"}),
    "nnclr": (NNCLR(queue=64, dim=8, hidden=16, predictor_hidden=16), {"queue_KE", "pointer"}),
    "lejepa": (LeJEPA(dim=8, hidden=16, directions=8), {"step"}),
}  # fmt: skip


@pytest.mark.parametrize("name", STATE)
def test_a_resumed_run_has_the_same_bits(name, beton, tmp_path):
    method, own = STATE[name]
    options = {"method": method, **LOCAL}
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "whole", max_steps=5, **options))
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=2, **options))
    early = tiny_runs.saved_weights(tmp_path / "parts")
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=5, **options))
    whole, parts = (tiny_runs.saved_weights(tmp_path / run) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() and {f"method.{key}" for key in own} <= whole.keys()
    assert all(not torch.equal(whole[f"method.{key}"], early[f"method.{key}"]) for key in own)
    for key, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, parts[key]), key
