"""Optimizers for large batches, which give every layer a step in proportion to the norm of its weights.

Groups of parameters with `adapt` False are not scaled: SimCLR, BYOL and Barlow Twins leave norms and biases out. List
operations throughout, and no host sync.
"""

from typing import Any

import torch
from torch import Tensor


class Lars(torch.optim.Optimizer):
    """LARS (You 2017, arXiv 1708.03888): SGD whose step is trust x |w| / |g + decay w| times as long in each layer.

    u = g + weight_decay * w;  v = momentum * v + trust * |w| / |u| * u;  w = w - lr * v. This is the variant that
    SimCLR, BYOL and Barlow Twins train with; You divides by |g| + weight_decay * |w| instead of |u|. Layers where a
    norm is 0 take the plain step.
    """

    def __init__(
        self, params: Any, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step on the gradients that are there."""
        for group in self.param_groups:
            params, updates = _with_gradients(group)
            if not params:
                continue
            if group["weight_decay"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
            if group["adapt"]:
                updates = _scaled(updates, params, group["trust"])
            if group["momentum"]:
                velocities = _averages(self, params, "velocity")
                torch._foreach_mul_(velocities, group["momentum"])
                torch._foreach_add_(velocities, updates)
                updates = velocities
            torch._foreach_add_(params, updates, alpha=-group["lr"])


class Lamb(torch.optim.Optimizer):
    """LAMB (You 2019, arXiv 1904.00962, algorithm 2): AdamW whose step has the norm lr x |w| in each layer.

    r = m_hat / (sqrt(v_hat) + eps) + weight_decay * w;  w = w - lr * |w| / |r| * r. Layers where a norm is 0, and
    groups with `adapt` False, take AdamW's step.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True, "steps": 0}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step on the gradients that are there."""
        for group in self.param_groups:
            group["steps"] += 1
            params, grads = _with_gradients(group)
            if not params:
                continue
            first, second = group["betas"]
            means, squares = _averages(self, params, "mean"), _averages(self, params, "square")
            torch._foreach_lerp_(means, grads, 1 - first)
            torch._foreach_mul_(squares, second)
            torch._foreach_addcmul_(squares, grads, grads, value=1 - second)
            roots = list(torch._foreach_div(squares, 1 - second ** group["steps"]))
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            updates = list(torch._foreach_div(means, 1 - first ** group["steps"]))
            torch._foreach_div_(updates, roots)
            if group["weight_decay"]:
                torch._foreach_add_(updates, params, alpha=group["weight_decay"])
            if group["adapt"]:
                updates = _scaled(updates, params, 1.0)
            torch._foreach_add_(params, updates, alpha=-group["lr"])


def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of a group that have gradients, and these."""
    params = [p for p in group["params"] if p.grad is not None]
    return params, [p.grad for p in params]


def _averages(optimizer: torch.optim.Optimizer, params: list[Tensor], name: str) -> list[Tensor]:
    """A running average of each parameter's size, zero at first."""
    for p in params:
        if name not in optimizer.state[p]:
            optimizer.state[p][name] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return [optimizer.state[p][name] for p in params]


def _scaled(updates: list[Tensor], params: list[Tensor], trust: float) -> list[Tensor]:
    """Each update times trust x |w| / |update|; as it is where either norm is 0."""
    w, u = (torch.stack(list(torch._foreach_norm(tensors))) for tensors in (params, updates))
    ratios = torch.where((w > 0) & (u > 0), trust * w / u, torch.ones_like(w))
    return list(torch._foreach_mul(updates, list(ratios.unbind())))
