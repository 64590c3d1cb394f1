"""Batch norm whose statistics span one process or all of them.

torch.nn.SyncBatchNorm runs on GPUs only; the same statistics over gloo are needed to show on a CPU that a run does
not depend on the number of processes.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..training.distributed import sum_with_gradient


def _spans(sync: bool, training: bool) -> bool:
    return sync and training and dist.is_initialized() and dist.get_world_size() > 1


def _sync_forward(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm with the mean and variance of the batches of all processes together."""
    dims = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    x32 = x.float()
    count = x.numel() / x.shape[1]
    sums = sum_with_gradient(torch.cat([x32.sum(dims), (x32 * x32).sum(dims), x32.new_full((1,), count)]))
    total = sums[-1]
    mean, square = (sums[:-1] / total).chunk(2)
    variance = (square - mean * mean).clamp(min=0)
    if norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None:
        with torch.no_grad():
            norm.running_mean.lerp_(mean.detach(), norm.momentum)
            norm.running_var.lerp_(variance.detach() * (total / (total - 1)), norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    offset = -mean * scale
    if norm.affine:
        offset = offset + norm.bias
    return (x32 * scale.view(shape) + offset.view(shape)).to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, with `sync` over all processes while training."""

    def __init__(self, channels: int, *, sync: bool = False) -> None:
        super().__init__(channels)
        self.sync = sync

    def forward(self, input: Tensor) -> Tensor:
        return _sync_forward(self, input) if _spans(self.sync, self.training) else super().forward(input)


class BatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d, with `sync` over all processes while training."""

    def __init__(self, channels: int, *, affine: bool = True, sync: bool = False) -> None:
        super().__init__(channels, affine=affine)
        self.sync = sync

    def forward(self, input: Tensor) -> Tensor:
        return _sync_forward(self, input) if _spans(self.sync, self.training) else super().forward(input)


def use_native_sync(module: nn.Module) -> nn.Module:
    """On CUDA: the same norms as torch's fused SyncBatchNorm; parameters, buffers and names stay."""
    for name, child in module.named_children():
        if isinstance(child, (BatchNorm1d, BatchNorm2d)) and child.sync:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            use_native_sync(child)
    return module
