"""The LAMB optimizer."""

from typing import Any

import torch

from .layerwise import (
    LayerwiseOptimizer,
    apply_update,
    bias_correction,
    effective_decay,
    layerwise_scaled,
    running_averages,
)


class Lamb(LayerwiseOptimizer):
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
        """One step on all parameters with gradients; closure is ignored."""
        for group in self.param_groups:
            params, grads, applied = self.gradients(group)
            group["steps"] = group["steps"] + (1 if applied is None else applied.double())
            if not params:
                continue
            first, second = group["betas"]
            means, squares = running_averages(self, params, "mean"), running_averages(self, params, "square")
            torch._foreach_mul_(means, effective_decay(first, applied))
            torch._foreach_add_(means, grads, alpha=1 - first)
            torch._foreach_mul_(squares, effective_decay(second, applied))
            torch._foreach_addcmul_(squares, grads, grads, value=1 - second)
            roots = list(torch._foreach_div(squares, bias_correction(second, group["steps"])))
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            updates = list(torch._foreach_div(means, bias_correction(first, group["steps"])))
            torch._foreach_div_(updates, roots)
            if group["weight_decay"]:
                torch._foreach_add_(updates, params, alpha=group["weight_decay"])
            if group["adapt"]:
                updates = layerwise_scaled(updates, params, 1.0)
            apply_update(params, updates, group["lr"], applied)
