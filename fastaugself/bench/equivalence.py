"""Statistical comparison of the views of two augmentations.

Peers draw their own parameters, so pixels cannot be compared; distributions of views can.
"""

import math

import torch
from torch import Tensor

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from .work import Ready

COMPARED = 256  # views of a peer; ours has four times as many
AT_ONCE = 8  # views that fit the cache
TOLERANCES = {
    "mean": 0.12,  # of a channel, in normalised units; largest of three
    "std": 0.12,  # of a channel, in normalised units; largest of three
    "gray": 0.12,  # fraction of views without colour; the standard error of a difference is 0.03
    "detail": 0.25,  # mean difference of neighbouring pixels, as a fraction; shows missing antialiasing
    "blur": 0.22,  # fraction of smooth views: 0.37, without blur 0.01; rounding to 8 bits lowers it
}


def some_views(ready: Ready, count: int) -> Tensor:
    """At least `count` views, float32 on the CPU."""
    return torch.cat([ready.call().float().cpu() for _ in range(math.ceil(count / ready.units))])


def statistics(views_NCHW: Tensor) -> dict[str, Tensor]:
    """The statistics of normalised views that `differences` compares."""
    means, stds = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    found: dict[str, list[Tensor]] = {name: [] for name in ("mean", "square", "gray", "detail", "blur")}
    for part_NCHW in views_NCHW.split(AT_ONCE):
        colours_NCHW = part_NCHW * stds + means
        chroma_N = (colours_NCHW.amax(1) - colours_NCHW.amin(1)).amax((1, 2))
        first_N, second_N = (part_NCHW.diff(n, dim=3).abs().mean((1, 2, 3)) for n in (1, 2))
        found["mean"].append(part_NCHW.mean((2, 3)))
        found["square"].append(part_NCHW.square().mean((2, 3)))
        found["gray"].append((chroma_N < 0.02).float())
        found["detail"].append(first_N)
        found["blur"].append((second_N < 0.9 * first_N).float())
    mean = {name: torch.cat(values).mean(0) for name, values in found.items()}
    std_C = (mean.pop("square") - mean["mean"].square()).sqrt()
    return mean | {"std": std_C}


def differences(views: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """How far the statistics of some views are from the expected ones, in the units of `TOLERANCES`."""
    found = {name: (views[name] - expected[name]).abs().max().item() for name in ("mean", "std", "gray", "blur")}
    return found | {"detail": (views["detail"] / expected["detail"] - 1).abs().item()}
