"""Optimizer, its schedules, and gradient clipping."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config.optim import Optim
from ..errors import UsageError
from .apex import apex_optimizers
from .lamb import Lamb
from .lars import Lars

EPS = 1e-6  # added to norms, as in torch.nn.utils.clip_grad_norm_


def learning_rate(
    config: Optim, step: int, *, steps_per_epoch: int, epochs: int, batch_size: int, warmup: bool = True
) -> float:
    """The learning rate of a step (counted from 0): linear warm-up, then a cosine or constant schedule.

    warmup: False leaves out the warm-up.
    """
    peak, warmup_epochs = config.lr * batch_size / 256, config.warmup_epochs if warmup else 0.0
    epoch = float(step // steps_per_epoch) if config.schedule_by == "epoch" else step / steps_per_epoch
    if epoch < warmup_epochs:
        return peak * (step + 1) / (warmup_epochs * steps_per_epoch)
    if config.schedule == "constant":
        return peak
    progress = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
    return cosine(peak, config.min_lr * batch_size / 256, progress)


def weight_decay(config: Optim, progress: float) -> float:
    """The weight decay of a step (Caron 2021, arXiv 2104.14294, appendix C).

    progress: fraction of the run that is done before it.
    """
    if config.weight_decay_end is None:
        return config.weight_decay
    return cosine(config.weight_decay, config.weight_decay_end, progress)


def cosine(start: float, end: float, progress: float) -> float:
    """A value that moves from `start` to `end` along half a cosine. progress: in [0, 1]; above 1 it stays at `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(model: nn.Module, config: Optim, *, constant_lr: tuple[str, ...] = ()) -> torch.optim.Optimizer:
    """Builds the optimizer over all parameters that require gradients. Call `set_learning_rate` before each step, and
    `set_weight_decay` if it has a schedule.

    constant_lr: names of submodules of the method whose learning rate stays constant at its peak.
    Raises UsageError if apex is requested but NVIDIA's apex or CUDA is missing.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            constant = any(name.startswith(f"method.{part}.") for part in constant_lr)
            groups.setdefault((constant, parameter.ndim == 1), []).append(parameter)
    parameters = [
        {
            "params": group,
            "constant": constant,
            "scale": config.norm_bias_lr_scale if vector else 1.0,
            "weight_decay": config.weight_decay if config.decay_norm_bias or not vector else 0.0,
            "decays": config.decay_norm_bias or not vector,
            "adapt": not vector or config.adapt_norm_bias,
        }
        for (constant, vector), group in groups.items()
    ]
    return optimizer_of(parameters, config)


def optimizer_of(parameters: list[dict[str, Any]], config: Optim) -> torch.optim.Optimizer:
    """The optimizer of parameter groups with the keys of `make_optimizer`: params, scale, weight_decay, ...

    Raises as `make_optimizer`.
    """
    cuda = parameters[0]["params"][0].is_cuda
    if config.implementation == "apex":
        return _apex(parameters, config, cuda)
    if config.name == "lars":
        return Lars(
            parameters,
            lr=0.0,
            momentum=config.momentum,
            trust_coefficient=config.trust_coefficient,
            lr_in_velocity=config.lr_in_velocity,
        )
    if config.name == "lamb":
        return Lamb(parameters, lr=0.0, betas=config.betas)
    if config.name == "sgd":
        sgd = torch.optim.SGD(parameters, lr=0.0, momentum=config.momentum, fused=True)
        if config.momentum:
            # Fused SGD fails if some parameters get their first gradient in a later step; zeros are its initial value.
            for parameter in (p for group in sgd.param_groups for p in group["params"]):
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(parameters, lr=0.0, betas=config.betas, fused=True)


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`optimizer.load_state_dict`, then copies the state to the memory format of the parameters.

    Fused CPU optimizers assume equal strides without a check.
    """
    decays = [group["decays"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["decays"] = decay  # missing from older checkpoints
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _apex(parameters: list[dict[str, Any]], config: Optim, cuda: bool) -> torch.optim.Optimizer:
    apex = apex_optimizers()
    if not cuda:
        raise UsageError("--optim.implementation apex needs CUDA; pass --optim.implementation torch")
    if config.name == "sgd":
        return apex.FusedSGD(parameters, lr=0.0, momentum=config.momentum)
    if config.name == "lamb":
        return apex.FusedLAMB(parameters, lr=0.0, betas=config.betas, adam_w_mode=True, max_grad_norm=math.inf)
    return apex.FusedAdam(parameters, lr=0.0, betas=config.betas, adam_w_mode=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, peak: float) -> None:
    """Sets the learning rate of each group: `lr`, or `peak` if the group is constant, times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = (peak if group["constant"] else lr) * group["scale"]


def set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the weight decay of all groups but norms and biases that have none."""
    for group in optimizer.param_groups:
        if group["decays"]:
            group["weight_decay"] = value


@torch.no_grad()
def clip_gradients(optimizer: torch.optim.Optimizer, most: float, by: Literal["global", "parameter"]) -> Tensor:
    """Scales gradients down to a norm of at most `most`, on the device without host sync. Returns the norm of them all.

    by: the norm of all gradients together, or that of each parameter. Gradients of frozen parameters (None) do not
    count. With loss scaling, unscale the gradients first (`GradScaler.unscale_`); NaN and Inf stay what they are.
    """
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norms = torch._foreach_norm(grads)
    total = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
    if by == "global":
        torch._foreach_mul_(grads, (most / (total + EPS)).clamp(max=1.0))
    else:
        torch._foreach_mul_(grads, [(most / (norm + EPS)).clamp(max=1.0) for norm in norms])
    return total
