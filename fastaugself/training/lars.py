"""The LARS optimizer."""

from typing import Any

import torch

from .layerwise import LayerwiseOptimizer, apply_update, effective_decay, layerwise_scaled, running_averages


class Lars(LayerwiseOptimizer):
    """LARS (You 2017, arXiv 1708.03888): SGD with momentum and a layer-wise scaled step.

    u = g + weight_decay * w;  v = momentum * v + trust_coefficient * |w| / |u| * u;  w = w - lr * v. This is the
    variant of SimCLR, BYOL and Barlow Twins; You divides by |g| + weight_decay * |w| instead of |u|. Layers where a
    norm is 0, and groups with `adapt` False, take the unscaled step.

    lr_in_velocity: v = momentum * v + lr * trust_coefficient * |w| / |u| * u;  w = w - v, as in TensorFlow and in
    SimCLR's code. The same as long as lr is constant.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        lr_in_velocity: bool = False,
    ) -> None:
        options = {"momentum": momentum, "weight_decay": weight_decay, "trust_coefficient": trust_coefficient}
        super().__init__(params, {"lr": lr, "adapt": True, **options})
        self.lr_in_velocity = lr_in_velocity

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step on all parameters with gradients; closure is ignored."""
        for group in self.param_groups:
            params, updates, applied = self.gradients(group)
            if not params:
                continue
            if group["weight_decay"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
            if group["adapt"]:
                updates = layerwise_scaled(updates, params, group["trust_coefficient"])
            lr = group["lr"]
            if self.lr_in_velocity:
                updates, lr = list(torch._foreach_mul(updates, lr)), 1.0
            if group["momentum"]:
                velocities = running_averages(self, params, "velocity")
                if applied is not None:
                    updates = list(torch._foreach_mul(updates, applied))
                torch._foreach_mul_(velocities, effective_decay(group["momentum"], applied))
                torch._foreach_add_(velocities, updates)
                updates = velocities
            apply_update(params, updates, lr, applied)
