"""The device that `--device` names."""

from typing import Literal

import torch

from .errors import UsageError

DeviceName = Literal["auto", "cuda", "cpu"]


def find_device(name: DeviceName) -> torch.device:
    """auto takes CUDA where there is one. Raises UsageError where CUDA is asked for and missing."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError("--device cuda: this torch finds no CUDA device; pass --device cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
