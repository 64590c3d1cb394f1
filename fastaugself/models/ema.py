"""EMA (momentum) encoders."""

import copy
import math

import torch
from torch import Tensor, nn


def ema_copy(module: nn.Module) -> nn.Module:
    """A deep copy that requires no gradients, to be updated by `ema_update`."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(ema_modules: list[nn.Module], modules: list[nn.Module], momentum: float) -> None:
    """ema = momentum * ema + (1 - momentum) * parameter, in place. Buffers (batch statistics) are not updated."""
    averages: list[Tensor] = [p for module in ema_modules for p in module.parameters()]
    parameters: list[Tensor] = [p for module in modules for p in module.parameters()]
    torch._foreach_lerp_(averages, parameters, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """BYOL's cosine schedule of the EMA momentum, from `start` to 1 (Grill 2020, arXiv 2006.07733, section 3.3).

    progress: fraction of training that is done, in [0, 1].
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
