"""What LARS and LAMB share: layer-wise scaled steps, without host sync, also with a loss scaled for fp16.

Parameter groups with `adapt` False are not scaled: SimCLR, BYOL and Barlow Twins exclude norms and biases.
"""

from typing import Any

import torch
from torch import Tensor


class LayerwiseOptimizer(torch.optim.Optimizer):
    """What torch.amp.GradScaler can drive without waiting: a step that itself finds out whether it counts."""

    _step_supports_amp_scaling = True
    found_inf: Tensor  # both are there only while the scaler makes a step
    grad_scale: Tensor | None

    def gradients(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Parameters that have gradients, these, and 1 or 0: whether the step counts. None: it does, nothing is scaled.

        In a step that does not count, because a scaled gradient was not finite, all gradients are 0.
        """
        params = [p for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        if not hasattr(self, "found_inf"):
            return params, grads, None
        counts = (self.found_inf == 0).float().reshape(())
        if self.grad_scale is not None:
            grads = list(torch._foreach_div(grads, self.grad_scale.reshape(())))
        # No list operation takes the place of what is not finite: 0 times infinity is none.
        return params, [torch.where(counts > 0, g, torch.zeros_like(g)) for g in grads], counts


def decayed_weight(share: float, counts: Tensor | None) -> float | Tensor:
    """What a running average keeps of itself: `share`, or all of it in a step that does not count."""
    return share if counts is None else 1 - (1 - share) * counts


def bias_correction(share: float, steps: int | Tensor) -> float | Tensor:
    """Weight of all that a running average, 0 at first, has seen in so many steps; before the first, that of one."""
    if isinstance(steps, Tensor):
        filled: Tensor = (1 - share ** steps.clamp(min=1)).float()
        return filled
    return 1.0 - share**steps


def apply_update(params: list[Tensor], updates: list[Tensor], lr: float, counts: Tensor | None) -> None:
    """w = w - lr * update, in a step that counts."""
    if counts is None:
        torch._foreach_add_(params, updates, alpha=-lr)
    else:
        torch._foreach_add_(params, torch._foreach_mul(updates, -lr * counts))


def running_averages(optimizer: torch.optim.Optimizer, params: list[Tensor], name: str) -> list[Tensor]:
    """A running average of each parameter's size, zero at first."""
    for p in params:
        if name not in optimizer.state[p]:
            optimizer.state[p][name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return [optimizer.state[p][name] for p in params]


def layerwise_scaled(updates: list[Tensor], params: list[Tensor], trust: float) -> list[Tensor]:
    """Each update times trust x |w| / |update|; as it is where either norm is 0."""
    w, u = (torch.stack(list(torch._foreach_norm(tensors))) for tensors in (params, updates))
    ratios = torch.where((w > 0) & (u > 0), trust * w / u, torch.ones_like(w))
    return list(torch._foreach_mul(updates, list(ratios.unbind())))
