"""Multi-layer perceptrons on top of pooled features."""

from itertools import pairwise

from torch import nn

from .norm import BatchNorm1d


def mlp(widths: list[int], *, hidden_norm: bool = True, last_norm: bool = False, sync: bool = False) -> nn.Sequential:
    """Linear layers of `widths`, each but the last followed by (batch norm and) ReLU.

    A layer before a batch norm has no bias. last_norm: end with an affine batch norm. sync: batch statistics over all
    processes.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normed = last_norm if last else hidden_norm
        layers.append(nn.Linear(inputs, outputs, bias=not normed))
        if normed:
            layers.append(BatchNorm1d(outputs, sync=sync))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
