"""Batch norm whose statistics span a group of samples, the batch of a process, or those of all processes.

torch.nn.SyncBatchNorm runs on GPUs only; the same statistics over gloo are needed to show on a CPU that a run does
not depend on the number of processes.

`group` cuts the input into runs of as many consecutive samples, each with statistics of its own: so two views in one
input are normalised as two inputs are, and the groups of ghost batch norm (Hoffer 2017, arXiv 1705.08741) are those of
MoCo's split batch norm. Running averages move once a group, in order.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..training.distributed import gather_with_gradient


def _spans(sync: bool, training: bool) -> bool:
    return sync and training and dist.is_initialized() and dist.get_world_size() > 1


def _sync_forward(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm with the mean and variance of the batches of all processes, which are of one size, together.

    One exchange forward and one backward. W processes, C channels.
    """
    shape = [1, -1] + [1] * (x.ndim - 2)
    x32 = x.float()
    own_variance_C, own_mean_C = torch.var_mean(x32, [0, *range(2, x.ndim)], correction=0)
    means_WC, variances_WC = gather_with_gradient(torch.stack([own_mean_C, own_variance_C])[None]).unbind(1)
    mean = means_WC.mean(0)
    variance = (variances_WC + (means_WC - mean).square()).mean(0)  # E[x^2] - mean^2 would cancel
    total = x.numel() // x.shape[1] * len(means_WC)
    if norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None:
        with torch.no_grad():
            norm.running_mean.lerp_(mean.detach(), norm.momentum)
            norm.running_var.lerp_(variance.detach() * (total / (total - 1)), norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    y = (x32 - mean.view(shape)) * scale.view(shape)
    if norm.affine:
        y = y + norm.bias.view(shape)
    return y.to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, with `sync` over all processes while training."""

    def __init__(self, channels: int, *, sync: bool = False) -> None:
        super().__init__(channels)
        self.sync, self.group = sync, 0

    def forward(self, input: Tensor) -> Tensor:
        return by_groups(self, self._whole, input)

    def _whole(self, x: Tensor) -> Tensor:
        return _sync_forward(self, x) if _spans(self.sync, self.training) else super().forward(x)


class BatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d, with `sync` over all processes while training."""

    def __init__(self, channels: int, *, affine: bool = True, sync: bool = False) -> None:
        super().__init__(channels, affine=affine)
        self.sync = sync

    def forward(self, input: Tensor) -> Tensor:
        return _sync_forward(self, input) if _spans(self.sync, self.training) else super().forward(input)


class NativeSyncBatchNorm(nn.SyncBatchNorm):
    """torch's fused batch norm over all processes, on CUDA, by groups."""

    group = 0

    def forward(self, input: Tensor) -> Tensor:
        return by_groups(self, super().forward, input)


def by_groups(norm: nn.Module, whole: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`whole` of every `norm.group` samples while training, of all of them where that is 0."""
    group = cast(int, norm.group)
    if not (norm.training and group and len(x) > group):
        return whole(x)
    return torch.cat([whole(part) for part in x.split(group)])


def set_group(module: nn.Module, samples: int) -> None:
    """Statistics of every `samples` consecutive samples (0: of all) in this project's 2D batch norms in `module`."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and hasattr(child, "group"):
            child.group = samples  # type: ignore[assignment]


def use_native_sync(module: nn.Module, make: Callable[[nn.Module], nn.Module] | None = None) -> nn.Module:
    """On CUDA: the same norms as torch's fused SyncBatchNorm, or what `make` makes; parameters, buffers, names stay."""
    for name, child in module.named_children():
        if isinstance(child, (BatchNorm1d, BatchNorm2d)) and child.sync:
            setattr(module, name, _with_state(child, (make or _native)(child)))
        else:
            use_native_sync(child, make)
    return module


def _native(norm: nn.Module) -> nn.Module:
    norm = cast(nn.BatchNorm2d, norm)
    return NativeSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)


def _with_state(norm: nn.Module, made: nn.Module) -> nn.Module:
    """`made` with the parameters and buffers of `norm`, themselves."""
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    return made.train(norm.training)
