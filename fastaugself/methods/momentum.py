"""Networks that follow others slowly."""

import copy
import math

import torch
from torch import Tensor, nn


def follower(module: nn.Module) -> nn.Module:
    """A copy that takes no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(followers: list[nn.Module], leaders: list[nn.Module], momentum: float) -> None:
    """Moves the followers' parameters: momentum x own + (1 - momentum) x leader's. Batch-norm buffers are their own."""
    own: list[Tensor] = [p for module in followers for p in module.parameters()]
    theirs: list[Tensor] = [p for module in leaders for p in module.parameters()]
    torch._foreach_lerp_(own, theirs, 1 - momentum)


def rising(start: float, progress: float) -> float:
    """BYOL's momentum: from `start` to 1 along half a cosine (Grill 2020, arXiv 2006.07733, section 3.3)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
