"""Optimizer and learning-rate schedule."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..errors import UsageError
from .apex import apex_optimizers


@dataclass(frozen=True)
class Optim:
    """The optimizer and its schedule."""

    name: Literal["sgd"] = "sgd"
    """Stochastic gradient descent with momentum."""
    implementation: Literal["torch", "apex"] = "torch"
    """PyTorch's fused optimizer, or NVIDIA apex's (CUDA only)."""
    lr: float = 0.03
    """Learning rate for a batch of 256; scaled linearly with --batch-size."""
    momentum: float = 0.9
    """Momentum of the optimizer."""
    weight_decay: float = 1e-4
    """Weight decay on all parameters, as MoCo and AugSelf do."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: down to 0 along half a cosine, or unchanged."""
    schedule_by: Literal["step", "epoch"] = "step"
    """Whether the learning rate moves at every step, or once an epoch as in the published code."""

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise UsageError(f"--optim.{name.replace('_', '-')} must be at least 0, got {getattr(self, name)}")


def learning_rate(config: Optim, step: int, *, steps_per_epoch: int, epochs: int, batch_size: int) -> float:
    """The learning rate of a step: a pure function of the step's number, counted from 0."""
    peak = config.lr * batch_size / 256
    epoch = float(step // steps_per_epoch) if config.schedule_by == "epoch" else step / steps_per_epoch
    if epoch < config.warmup_epochs:
        return peak * (step + 1) / (config.warmup_epochs * steps_per_epoch)
    if config.schedule == "constant":
        return peak
    progress = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(model: nn.Module, config: Optim) -> torch.optim.Optimizer:
    """SGD over all parameters that take gradients; fused on CUDA. The learning rate is set at every step.

    Raises UsageError where apex is asked for and NVIDIA's apex or CUDA is missing.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.implementation == "apex":
        fused = apex_optimizers()
        if not parameters[0].is_cuda:
            raise UsageError("--optim.implementation apex needs CUDA; pass --optim.implementation torch")
        return fused.FusedSGD(parameters, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=parameters[0].is_cuda,
        foreach=None if parameters[0].is_cuda else True,
    )
