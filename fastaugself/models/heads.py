"""Multi-layer perceptrons on top of pooled features."""

from itertools import pairwise
from typing import Literal

from torch import nn

from .norm import BatchNorm1d

LastNorm = Literal["none", "affine", "plain"]


def mlp(
    widths: list[int],
    *,
    hidden_norm: bool = True,
    last_norm: LastNorm = "none",
    last_relu: bool = False,
    sync: bool = False,
) -> nn.Sequential:
    """Linear layers of `widths`, each but the last followed by (batch norm and) ReLU.

    A layer before a batch norm has no bias. last_norm: end with a batch norm, with or without parameters. last_relu:
    the last layer is a hidden one too. sync: batch statistics over all processes.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        hidden = last_relu or i < len(widths) - 2
        norm = ("affine" if hidden_norm else "none") if hidden else last_norm
        layers.append(nn.Linear(inputs, outputs, bias=norm == "none"))
        if norm != "none":
            layers.append(BatchNorm1d(outputs, affine=norm == "affine", sync=sync))
        if hidden:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
