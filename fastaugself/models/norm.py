"""Batch norm whose statistics span a group of samples, the batch of a process, or those of all processes.

torch.nn.SyncBatchNorm runs on GPUs only; the same statistics over gloo are needed to show on a CPU that a run does
not depend on the number of processes.

`group_size` splits the input into groups of that many consecutive samples, each with its own statistics: two views in
one input are normalised like two inputs. This is ghost batch norm (Hoffer 2017, arXiv 1705.08741), as in MoCo's split
batch norm. Running statistics are updated once per group, in order.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ..distributed import world_size
from .norm_function import normalise


def _over_processes(sync: bool) -> bool:
    return sync and world_size() > 1


def _own_forward(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, groups: int, sync: bool) -> Tensor:
    """Batch norm while training, of each of `groups` runs of samples; with `sync` over all processes together.

    Processes have batches of one size. One exchange forward and one backward, whatever the number of groups.
    """
    plain = torch.compiler.is_compiling() or x.dtype != torch.float32
    y, mean_GC, variance_GC = normalise(x, norm.weight, norm.bias, norm.eps, groups, sync, plain)
    if norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None:
        count = x.numel() // x.shape[1] // groups * (world_size() if sync else 1)
        with torch.no_grad():
            for mean_C, variance_C in zip(mean_GC, variance_GC * (count / (count - 1)), strict=True):
                norm.running_mean.lerp_(mean_C, norm.momentum)
                norm.running_var.lerp_(variance_C, norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(groups)
    return y


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d; while training over groups of `group_size` samples (0: all), with `sync` over all processes."""

    def __init__(self, channels: int, *, sync: bool = False, group_size: int = 0) -> None:
        super().__init__(channels)
        self.sync, self.group_size = sync, group_size

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        sync, group = _over_processes(self.sync), self.group_size or len(input)
        if torch.compiler.is_compiling() and len(input) > group and len(input) % group == 0:
            return _own_forward(self, input, len(input) // group, sync)  # parts put together would be copies
        return by_groups(self, partial(_own_forward, self, groups=1, sync=True) if sync else super().forward, input)


class BatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d, with `sync` over all processes while training."""

    def __init__(self, channels: int, *, affine: bool = True, sync: bool = False) -> None:
        super().__init__(channels, affine=affine)
        self.sync = sync

    def forward(self, input: Tensor) -> Tensor:
        sync = self.training and _over_processes(self.sync)
        return _own_forward(self, input, 1, sync) if sync else super().forward(input)


class NativeSyncBatchNorm(nn.SyncBatchNorm):
    """torch's fused batch norm over all processes, on CUDA, by groups of `group_size` samples (0: all)."""

    group_size = 0

    def forward(self, input: Tensor) -> Tensor:
        return by_groups(self, super().forward, input)


def by_groups(norm: nn.Module, whole: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`whole` applied to every `norm.group_size` samples while training, or to all of them where that is 0."""
    group = cast(int, norm.group_size)
    if not (norm.training and group and len(x) > group):
        return whole(x)
    return torch.cat([whole(part) for part in x.split(group)])


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
    made = NativeSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.group_size = norm.group_size if isinstance(norm, BatchNorm2d) else 0
    return made


def _with_state(norm: nn.Module, made: nn.Module) -> nn.Module:
    """`made` with the parameters and buffers of `norm`, themselves."""
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    return made.train(norm.training)
