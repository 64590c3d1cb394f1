"""torchvision and timm are imported beside a torch that torchvision was not built for."""

import subprocess
import sys

import pytest

CODE = """
import sys, torch
from fastaugself.models.beside import import_timm, import_torchvision, without_operators
{before}
tv = import_torchvision()
assert import_torchvision() is tv
x = torch.randn(1, 3, 64, 64)
assert tv.models.resnet18().eval()(x).shape == (1, 1000)
assert import_timm().create_model("resnet10t", num_classes=7).eval()(x).shape == (1, 7)
print(without_operators())
"""


@pytest.mark.parametrize("before", ["", "try:\n    import torchvision\nexcept RuntimeError:\n    pass"])
def test_both_are_imported_whatever_was_tried_before(before, torchvision, timm):
    command = [sys.executable, "-P", "-c", CODE.format(before=before)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    plain = subprocess.run([sys.executable, "-P", "-c", "import torchvision"], capture_output=True, text=True)
    assert (result.stdout.strip() == "True") == ("operator torchvision::" in plain.stderr)


def test_an_encoder_of_either_is_loaded_in_a_fresh_process(torchvision, timm):
    code = """
import fastaugself as fa
for spec in ("torchvision:resnet18", "timm:resnet10t"):
    print(fa.load_encoder(f"random:{spec}", device="cpu").num_features)
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["512", "512"], result.stderr
