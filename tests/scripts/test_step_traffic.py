"""scripts/step_traffic.py: the code that torch.compile generates for a simulated GPU, and its memory traffic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastaugself import Backbone
from fastaugself.models.build import build_backbone

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__[:4] != "2.13", reason="it replaces private functions of torch 2.13")
def test_a_step_with_synchronised_norms_keeps_no_float32_images_and_moves_each_convolution_once(tmp_path):
    pytest.importorskip("triton")
    size, batch, out = 32, 4, tmp_path / "traffic.json"
    command = [sys.executable, "-P", ROOT / "scripts" / "step_traffic.py", "--backbone", "resnet18", "--no-augself"]
    command += ["--size", size, "--batch", batch, "--sync", 2, "--json", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    forward, backward = json.loads(out.read_text())["parts"]
    assert backward["kept"].keys() <= {"bfloat16", "bool", "int8"} and backward["kept"]["bfloat16"] > 0

    operands = []

    def count(module, inputs, output):
        operands.extend(t.numel() for t in (inputs[0], output, module.weight))

    backbone, _ = build_backbone(Backbone(name="resnet18", stem="small"))
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    backbone(torch.randn(batch, 3, size, size))
    expected = 2 * 2 * sum(operands)  # two encoders, two bytes per value
    assert forward["moved"]["convolutions"] == pytest.approx(expected, rel=0.02)
