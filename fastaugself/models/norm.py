"""Batch norm with statistics per group of samples, per process, or over all processes.

torch.nn.SyncBatchNorm runs on GPUs only. This implementation also runs on CPUs (gloo), where tests show that a run does
not depend on the number of processes.

`group_size` splits the input into groups of consecutive samples, each with its own statistics, so that two views
batched in one input are normalised separately. This is ghost batch norm (Hoffer 2017, arXiv 1705.08741), as in MoCo's
split batch norm. Running statistics are updated once per group, in order.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ..distributed import world_size
from .norm_function import batch_norm


def _over_processes(sync: bool) -> bool:
    return sync and world_size() > 1


def _training_forward(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, groups: int, sync: bool) -> Tensor:
    """Training-mode batch norm of `groups` consecutive groups of samples; updates the running statistics of `norm`.

    sync: statistics over all processes, which must have equal batch sizes; one collective in the forward pass and one
    in the backward pass, for any number of groups.
    """
    plain = torch.compiler.is_compiling() or x.dtype != torch.float32
    y, mean_GC, variance_GC = batch_norm(x, norm.weight, norm.bias, norm.eps, groups, sync, plain)
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
    """nn.BatchNorm2d with group statistics and synchronisation in training mode.

    group_size: samples per group of batch statistics; 0 is the whole input. sync: statistics over all processes.
    """

    def __init__(self, channels: int, *, sync: bool = False, group_size: int = 0) -> None:
        super().__init__(channels)
        self.sync, self.group_size = sync, group_size

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        sync, group = _over_processes(self.sync), self.group_size or len(input)
        if torch.compiler.is_compiling() and len(input) > group and len(input) % group == 0:
            return _training_forward(self, input, len(input) // group, sync)  # torch.cat of the groups would copy
        forward = partial(_training_forward, self, groups=1, sync=True) if sync else super().forward
        return by_groups(self, forward, input)


def batch_norm_1d(channels: int, *, affine: bool = True, sync: bool = False) -> nn.BatchNorm1d:
    """torch's batch norm of features [B, channels]; with `sync` over all processes in training mode."""
    return BatchNorm1d(channels, affine=affine, sync=True) if sync else nn.BatchNorm1d(channels, affine=affine)


class BatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d. sync: batch statistics over all processes in training mode."""

    def __init__(self, channels: int, *, affine: bool = True, sync: bool = False) -> None:
        super().__init__(channels, affine=affine)
        self.sync = sync

    def forward(self, input: Tensor) -> Tensor:
        sync = self.training and _over_processes(self.sync)
        return _training_forward(self, input, 1, sync) if sync else super().forward(input)


class NativeSyncBatchNorm(nn.SyncBatchNorm):
    """torch.nn.SyncBatchNorm (CUDA only) with group statistics; `group_size` 0 is the whole input."""

    group_size = 0

    def forward(self, input: Tensor) -> Tensor:
        return by_groups(self, super().forward, input)


def by_groups(norm: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies `forward` to each group of `norm.group_size` samples in training mode; to all of `x` if that is 0."""
    group = cast(int, norm.group_size)
    if not (norm.training and group and len(x) > group):
        return forward(x)
    return torch.cat([forward(part) for part in x.split(group)])


def use_native_sync(module: nn.Module, make: Callable[[nn.Module], nn.Module] | None = None) -> nn.Module:
    """Replaces synchronised norms in `module` by torch.nn.SyncBatchNorm (CUDA only), and returns `module`.

    make: builds the replacement of a norm, by default `NativeSyncBatchNorm`. Parameters, buffers and names are kept.
    """
    for name, child in module.named_children():
        if isinstance(child, (BatchNorm1d, BatchNorm2d)) and child.sync:
            setattr(module, name, _with_state(child, (make or _native)(child)))
        else:
            use_native_sync(child, make)
    return module


def synchronised(module: nn.Module) -> nn.Module:
    """Replaces torch's batch norms in `module` by synchronised ones with the same state, and returns `module`.

    Others, such as those of timm that include an activation, stay as they are.
    """
    for name, child in module.named_children():
        made: BatchNorm1d | BatchNorm2d | None = None
        if type(child) is nn.BatchNorm2d:
            made = BatchNorm2d(child.num_features, sync=True)
        elif type(child) is nn.BatchNorm1d:
            made = BatchNorm1d(child.num_features, affine=child.affine, sync=True)
        elif isinstance(child, BatchNorm1d | BatchNorm2d):
            child.sync = True
        if made is not None:
            norm = cast(nn.BatchNorm2d, child)
            made.eps, made.momentum = norm.eps, norm.momentum
            setattr(module, name, _with_state(norm, made))
        else:
            synchronised(child)
    return module


def _native(norm: nn.Module) -> nn.Module:
    norm = cast(nn.BatchNorm2d, norm)
    made = NativeSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.group_size = norm.group_size if isinstance(norm, BatchNorm2d) else 0
    return made


def _with_state(norm: nn.Module, made: nn.Module) -> nn.Module:
    """Gives `made` the parameters and buffers of `norm` (shared, not copied), and returns it."""
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    return made.train(norm.training)
