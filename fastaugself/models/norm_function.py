"""Batch norm over groups of samples or over all processes, as one autograd function with an explicit gradient.

Autograd would save `x - mean` in float32 for the backward pass of every norm. With activations in half precision that
is twice the memory of the input, and more reads and writes. This function saves the input instead.

With N values per channel in the statistics, xhat = (x - mean) / std and y = weight * xhat + bias (Ioffe and Szegedy
2015, arXiv 1502.03167, section 3):

    dx = weight / std * (dy - sum(dy) / N - xhat * sum(dy * xhat) / N)

Shape suffixes: S samples, G groups of B samples, W processes, C channels.
"""

from typing import Any

import torch
from torch import Tensor

from ..distributed import all_gather, sum_over_processes, world_size


class _BatchNorm(torch.autograd.Function):
    """Returns (y, mean_GC, variance_GC), the last two without gradients; variances are population variances."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, eps: float, groups: int, sync: bool,
        plain: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        x32 = x.float()
        variance_GC, mean_GC = torch.var_mean(_grouped(x32, groups), _within_group(x32), correction=0)
        if sync:
            means_WGC, variances_WGC = all_gather(torch.stack([mean_GC, variance_GC])[None]).unbind(1)
            mean_GC = means_WGC.mean(0)
            variance_GC = (variances_WGC + (means_WGC - mean_GC).square()).mean(0)  # E[x^2] - mean^2 would cancel
        if plain:
            scale_GC = torch.rsqrt(variance_GC + eps)
            if weight_C is not None:
                scale_GC = scale_GC * weight_C
            y = (x32 - _broadcast(mean_GC, x)) * _broadcast(scale_GC, x)
            if bias_C is not None:
                y = y + _broadcast(bias_C[None], x)
            y = y.to(x.dtype)
        else:  # the same in one fused kernel
            y = torch.native_batch_norm(x, weight_C, bias_C, mean_GC[0], variance_GC[0], False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight_C, mean_GC, variance_GC)
        ctx.eps, ctx.sync, ctx.plain = eps, sync, plain
        ctx.mark_non_differentiable(mean_GC, variance_GC)
        return y, mean_GC, variance_GC

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_C, mean_GC, variance_GC = ctx.saved_tensors
        rstd_GC = torch.rsqrt(variance_GC + ctx.eps)
        if ctx.plain:
            dy32 = dy.float()
            # Not x - mean: a compiler would share it with the forward pass, and save it instead of x.
            xhat = (_broadcast(mean_GC, x) - x.float()) * _broadcast(-rstd_GC, x)
            sums_2GC = torch.stack([_grouped(t, len(mean_GC)).sum(_within_group(x)) for t in (dy32, dy32 * xhat)])
        else:
            options = (mean_GC[0], variance_GC[0], None, None, False, ctx.eps, [True, True, True])
            dx, dot_C, sum_C = torch.ops.aten.native_batch_norm_backward(dy, x, weight_C, *options)
            sums_2GC = torch.stack([sum_C, dot_C])[:, None]
        all_2GC = sum_over_processes(sums_2GC) if ctx.sync else sums_2GC
        count = x.numel() // mean_GC.numel() * (world_size() if ctx.sync else 1)
        sum_GC, dot_GC = (all_2GC / count).unbind(0)
        scale_GC = rstd_GC if weight_C is None else rstd_GC * weight_C
        if ctx.plain:
            dx32 = (dy32 - _broadcast(sum_GC, x) - xhat * _broadcast(dot_GC, x)) * _broadcast(scale_GC, x)
            dx = dx32.to(x.dtype)
        else:  # dx so far treats the statistics as constants; the missing term is linear in x
            slope_GC = scale_GC * rstd_GC * dot_GC
            dx = dx.sub_(_broadcast(scale_GC * sum_GC - slope_GC * mean_GC, x))
            dx = dx.addcmul_(x, _broadcast(slope_GC, x), value=-1)
        if weight_C is None:
            return dx, None, None, None, None, None, None
        dbias_C, dweight_C = sums_2GC.sum(1).unbind(0)
        return dx, dweight_C, dbias_C, None, None, None, None


def _grouped(x: Tensor, groups: int) -> Tensor:
    """Reshapes [S, C, ...] to [G, B, C, ...]."""
    return x.unflatten(0, (groups, -1))


def _within_group(x: Tensor) -> list[int]:
    """Dimensions of [G, B, C, ...] to reduce for group statistics. x: [S, C, ...]."""
    return [1, *range(3, x.ndim + 1)]


def _broadcast(values_GC: Tensor, x: Tensor) -> Tensor:
    """Reshapes values per group and channel to broadcast with x [S, C, ...]."""
    G, S = len(values_GC), len(x)
    if G > 1:
        values_GC = values_GC[:, None].expand(-1, S // G, -1).flatten(0, 1)
    return values_GC.view(len(values_GC), -1, *[1] * (x.ndim - 2))


def batch_norm(
    x: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, eps: float, groups: int, sync: bool, plain: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Training-mode batch norm of `x` with statistics per group and channel.

    x: [S, C, ...] of any float dtype; computed in float32. weight_C, bias_C: float32, or both None. groups: number of
    equal groups of consecutive samples, each with its own statistics; must be 1 without `plain`. sync: statistics of
    the group over all processes. plain: elementary operations, for a compiler to fuse and for dtypes other than
    float32.
    Returns y, with the shape and dtype of x, and mean_GC and the population variance variance_GC, both float32 without
    gradients.
    """
    return _BatchNorm.apply(x, weight_C, bias_C, eps, groups, sync, plain)


def keep_in_graph() -> None:
    """Call before torch.compile: keeps `batch_norm` in the graph as a single call instead of a subgraph.

    torch.compile turns an autograd.Function into a higher-order operator, and refuses to split graphs that contain one
    at DDP's buckets.
    """
    torch.compiler.allow_in_graph(batch_norm)
