"""EMA (momentum) encoders."""

import copy
import math
from typing import Protocol

import torch
from torch import Tensor, nn

_STOCHASTIC = ("DropPath", "PatchDropout")  # classes of timm, which has Identity in their place at a rate of 0


def ema_copy(module: nn.Module) -> nn.Module:
    """A deep copy that requires no gradients, to be updated by `ema_update`.

    It has no stochastic depth and no token dropout, so that targets are those of the whole network and image, as those
    of DINO's teacher.
    """
    made = copy.deepcopy(module).requires_grad_(False)
    for name, part in list(made.named_modules()):
        if name and type(part).__name__ in _STOCHASTIC:
            made.set_submodule(name, nn.Identity())
    return made


@torch.no_grad()
def ema_update(ema_modules: list[nn.Module], modules: list[nn.Module], momentum: float) -> None:
    """ema = momentum * ema + (1 - momentum) * parameter, in place. Buffers (batch statistics) are not updated."""
    averages: list[Tensor] = [p for module in ema_modules for p in module.parameters()]
    parameters: list[Tensor] = [p for module in modules for p in module.parameters()]
    torch._foreach_lerp_(averages, parameters, 1 - momentum)


def cosine_momentum(start: float, progress: float, end: float = 1.0) -> float:
    """BYOL's cosine schedule of the EMA momentum, from `start` to `end` (Grill 2020, arXiv 2006.07733, section 3.3).

    progress: fraction of training that is done, in [0, 1].
    """
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


class MomentumOptions(Protocol):
    """Options of the EMA momentum: its initial value, whether it moves with a cosine schedule, and where to."""

    @property
    def momentum(self) -> float: ...
    @property
    def momentum_schedule(self) -> bool: ...
    @property
    def momentum_end(self) -> float: ...


def scheduled_momentum(options: MomentumOptions, progress: float) -> float:
    """The EMA momentum of a step. progress: fraction of training that is done, in [0, 1]."""
    if not options.momentum_schedule:
        return options.momentum
    return cosine_momentum(options.momentum, progress, options.momentum_end)
