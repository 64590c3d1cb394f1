"""Base class and helpers of LARS and LAMB: layer-wise scaled steps without host sync, also with fp16 loss scaling.

Parameter groups with `adapt` False are not scaled: SimCLR, BYOL and Barlow Twins exclude norms and biases.
"""

from typing import Any

import torch
from torch import Tensor


class LayerwiseOptimizer(torch.optim.Optimizer):
    """An optimizer that unscales gradients and skips steps on the device, so that GradScaler needs no host sync."""

    _step_supports_amp_scaling = True
    found_inf: Tensor  # GradScaler sets both during its step only
    grad_scale: Tensor | None

    def gradients(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Returns the parameters with gradients, their unscaled gradients, and `applied`.

        applied: 1.0, or 0.0 if the step is skipped because a gradient is NaN or Inf (all gradients are then 0); None
        without GradScaler.
        """
        params = [p for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        if not hasattr(self, "found_inf"):
            return params, grads, None
        applied = (self.found_inf == 0).float().reshape(())
        if self.grad_scale is not None:
            grads = list(torch._foreach_div(grads, self.grad_scale.reshape(())))
        # torch.where because NaN and Inf times 0 are NaN; there is no _foreach_ version.
        return params, [torch.where(applied > 0, g, torch.zeros_like(g)) for g in grads], applied


def effective_decay(decay: float, applied: Tensor | None) -> float | Tensor:
    """The decay of a running average in this step: `decay`, or 1 if the step is skipped."""
    return decay if applied is None else 1 - (1 - decay) * applied


def bias_correction(decay: float, steps: int | Tensor) -> float | Tensor:
    """Adam's bias correction 1 - decay^steps; a tensor of 0 steps is treated as 1."""
    if isinstance(steps, Tensor):
        correction: Tensor = (1 - decay ** steps.clamp(min=1)).float()
        return correction
    return 1.0 - decay**steps


def apply_update(params: list[Tensor], updates: list[Tensor], lr: float, applied: Tensor | None) -> None:
    """w = w - lr * update, unless the step is skipped."""
    if applied is None:
        torch._foreach_add_(params, updates, alpha=-lr)
    else:
        torch._foreach_add_(params, torch._foreach_mul(updates, -lr * applied))


def running_averages(optimizer: torch.optim.Optimizer, params: list[Tensor], name: str) -> list[Tensor]:
    """The running averages `name` of the parameters, initially zero."""
    for p in params:
        if name not in optimizer.state[p]:
            optimizer.state[p][name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return [optimizer.state[p][name] for p in params]


def layerwise_scaled(updates: list[Tensor], params: list[Tensor], trust_coefficient: float) -> list[Tensor]:
    """Scales each update by trust_coefficient * |w| / |update|; unchanged if either norm is 0."""
    w, u = (torch.stack(list(torch._foreach_norm(tensors))) for tensors in (params, updates))
    ratios = torch.where((w > 0) & (u > 0), trust_coefficient * w / u, torch.ones_like(w))
    return list(torch._foreach_mul(updates, list(ratios.unbind())))
