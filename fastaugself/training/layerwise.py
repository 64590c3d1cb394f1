"""Optimizers for large batches, which give every layer a step in proportion to the norm of its weights.

Groups of parameters with `adapt` False are not scaled: SimCLR, BYOL and Barlow Twins leave norms and biases out. List
operations throughout, and no host sync, also with a scaled loss.
"""

from typing import Any

import torch
from torch import Tensor


class _Layerwise(torch.optim.Optimizer):
    """What torch.amp.GradScaler can drive without waiting: a step that itself finds out whether it counts."""

    _step_supports_amp_scaling = True
    found_inf: Tensor  # both are there only while the scaler makes a step
    grad_scale: Tensor | None

    def _gradients(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
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


def _kept(share: float, counts: Tensor | None) -> float | Tensor:
    """What a running average keeps of itself: `share`, or all of it in a step that does not count."""
    return share if counts is None else 1 - (1 - share) * counts


def _filled(share: float, steps: int | Tensor) -> float | Tensor:
    """Weight of all that a running average, 0 at first, has seen in so many steps; before the first, that of one."""
    if isinstance(steps, Tensor):
        filled: Tensor = (1 - share ** steps.clamp(min=1)).float()
        return filled
    return 1.0 - share**steps


def _descend(params: list[Tensor], updates: list[Tensor], lr: float, counts: Tensor | None) -> None:
    """w = w - lr * update, in a step that counts."""
    if counts is None:
        torch._foreach_add_(params, updates, alpha=-lr)
    else:
        torch._foreach_add_(params, torch._foreach_mul(updates, -lr * counts))


class Lars(_Layerwise):
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
            params, updates, counts = self._gradients(group)
            if not params:
                continue
            if group["weight_decay"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
            if group["adapt"]:
                updates = _scaled(updates, params, group["trust"])
            if group["momentum"]:
                velocities = _averages(self, params, "velocity")
                if counts is not None:
                    updates = list(torch._foreach_mul(updates, counts))
                torch._foreach_mul_(velocities, _kept(group["momentum"], counts))
                torch._foreach_add_(velocities, updates)
                updates = velocities
            _descend(params, updates, group["lr"], counts)


class Lamb(_Layerwise):
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
            params, grads, counts = self._gradients(group)
            group["steps"] = group["steps"] + (1 if counts is None else counts.double())
            if not params:
                continue
            first, second = group["betas"]
            means, squares = _averages(self, params, "mean"), _averages(self, params, "square")
            torch._foreach_mul_(means, _kept(first, counts))
            torch._foreach_add_(means, grads, alpha=1 - first)
            torch._foreach_mul_(squares, _kept(second, counts))
            torch._foreach_addcmul_(squares, grads, grads, value=1 - second)
            roots = list(torch._foreach_div(squares, _filled(second, group["steps"])))
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            updates = list(torch._foreach_div(means, _filled(first, group["steps"])))
            torch._foreach_div_(updates, roots)
            if group["weight_decay"]:
                torch._foreach_add_(updates, params, alpha=group["weight_decay"])
            if group["adapt"]:
                updates = _scaled(updates, params, 1.0)
            _descend(params, updates, group["lr"], counts)


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
