"""Linear heads that are trained side by side on the same features, each with its own learning rate and weight decay.

Shape suffixes: H heads, B batch, C classes, D features.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.lars import Lars
from .linear_presets import MOMENTUM, TRUST


class Head(NamedTuple):
    """The setting of a head. input: see `head_inputs`. lr: at batch size 256."""

    input: str
    lr: float
    weight_decay: float

    def __str__(self) -> str:
        return f"{self.input}, lr {self.lr:g}, weight decay {self.weight_decay:g}"


class Heads(nn.Module):
    """Linear classifiers of slices of the same features, computed with one matrix product for each slice.

    slices: of the inputs by name. classes: number of them. Weights are normal with std 0.01 and biases 0, as in MoCo,
    SimSiam, MoCo v3, DINO and DINOv2; heads on one input start equal, so that a head of a grid is what it would be
    alone.
    """

    def __init__(self, heads: Sequence[Head], slices: dict[str, slice], classes: int, *, seed: int) -> None:
        super().__init__()
        self.heads, self.slices, self.classes = tuple(heads), slices, classes
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for head in heads:
            part = slices[head.input]
            weight_CD = torch.empty(classes, part.stop - part.start)
            nn.init.normal_(weight_CD, std=0.01, generator=torch.Generator().manual_seed(seed))
            self.weights.append(nn.Parameter(weight_CD))
            self.biases.append(nn.Parameter(torch.zeros(classes)))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Logits float32 [H, B, C] of features float32 [B, D]."""
        logits: dict[int, Tensor] = {}
        for name, part in self.slices.items():
            members = [i for i, head in enumerate(self.heads) if head.input == name]
            if not members:
                continue
            weight = torch.cat([self.weights[i] for i in members])
            bias = torch.cat([self.biases[i] for i in members])
            found_BHC = F.linear(x_BD[:, part], weight, bias).unflatten(1, (len(members), self.classes))
            logits |= dict(zip(members, found_BHC.unbind(1), strict=True))
        return torch.stack([logits[i] for i in range(len(self.heads))])

    def losses(self, x_BD: Tensor, labels_B: Tensor) -> Tensor:
        """The mean cross-entropy of each head, [H]."""
        logits_HBC = self(x_BD)
        losses_HB = F.cross_entropy(
            logits_HBC.flatten(0, 1), labels_B.repeat(len(self.heads)), reduction="none"
        ).unflatten(0, (len(self.heads), -1))
        return losses_HB.mean(1)

    @torch.no_grad()
    def finite(self) -> list[bool]:
        """For each head, whether its weights are free of NaN and Inf."""
        pairs = zip(self.weights, self.biases, strict=True)
        return [bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()) for weight, bias in pairs]


def make_optimizer(heads: Heads, kind: str, *, batch_size: int) -> torch.optim.Optimizer:
    """SGD with momentum, or LARS, with a group for each head. Call `set_learning_rates` before each step.

    The learning rate of a group is that of its head, scaled to the batch size. LARS adapts biases too, as in SimSiam's
    code (apex's LARC wraps all parameters).
    """
    groups: list[dict[str, Any]] = []
    for head, weight, bias in zip(heads.heads, heads.weights, heads.biases, strict=True):
        peak = head.lr * batch_size / 256
        groups.append({"params": [weight, bias], "lr": peak, "peak": peak, "weight_decay": head.weight_decay})
    if kind == "lars":
        return Lars(groups, lr=0.0, momentum=MOMENTUM, trust_coefficient=TRUST)
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of every group to its peak times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
