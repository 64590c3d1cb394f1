"""Batch norm with statistics of groups of samples, or of all processes, as one function with its gradient written out.

Autograd's gradient of the formula would keep `x - mean` of every norm in float32 for the backward pass, which is twice
the memory of the input in half precision, and read and write it more often. This one keeps the input.

With N values of a channel in the statistics, xhat = (x - mean) / std and y = weight xhat + bias (Ioffe and Szegedy
2015, arXiv 1502.03167, section 3):

    dx = weight / std * (dy - sum(dy) / N - xhat * sum(dy * xhat) / N)

Shape suffixes: S samples, G groups of B samples, W processes, C channels.
"""

from typing import Any

import torch
from torch import Tensor

from ..distributed import all_gather, sum_over_processes, world_size


class _Normalise(torch.autograd.Function):
    """(y, mean_GC, variance_GC), the last two without gradients; variances are those of the population."""

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
            y = (x32 - _along(mean_GC, x)) * _along(scale_GC, x)
            if bias_C is not None:
                y = y + _along(bias_C[None], x)
            y = y.to(x.dtype)
        else:  # the same in one pass
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
            # Not x - mean, which a compiler would take for the forward pass's, and keep instead of x.
            xhat = (_along(mean_GC, x) - x.float()) * _along(-rstd_GC, x)
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
            dx32 = (dy32 - _along(sum_GC, x) - xhat * _along(dot_GC, x)) * _along(scale_GC, x)
            dx = dx32.to(x.dtype)
        else:  # of given statistics so far; what is missing is a multiple of x and a constant
            slope_GC = scale_GC * rstd_GC * dot_GC
            dx = dx.sub_(_along(scale_GC * sum_GC - slope_GC * mean_GC, x)).addcmul_(x, _along(slope_GC, x), value=-1)
        if weight_C is None:
            return dx, None, None, None, None, None, None
        dbias_C, dweight_C = sums_2GC.sum(1).unbind(0)
        return dx, dweight_C, dbias_C, None, None, None, None


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[S, C, ...] as [G, B, C, ...]."""
    return x.unflatten(0, (groups, -1))


def _within_group(x: Tensor) -> list[int]:
    """The dimensions of [G, B, C, ...] over which statistics go. x: [S, C, ...]."""
    return [1, *range(3, x.ndim + 1)]


def _along(values_GC: Tensor, x: Tensor) -> Tensor:
    """A value for each group and channel in a shape that goes with x [S, C, ...]."""
    G, S = len(values_GC), len(x)
    if G > 1:
        values_GC = values_GC[:, None].expand(-1, S // G, -1).flatten(0, 1)
    return values_GC.view(len(values_GC), -1, *[1] * (x.ndim - 2))


def normalise(
    x: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, eps: float, groups: int, sync: bool, plain: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`x` with mean 0 and variance 1, times weight plus bias, for each group and channel.

    x: [S, C, ...] of any float type; computed in float32. weight_C, bias_C: float32, or both None. groups: runs of as
    many samples each that have statistics of their own; must be 1 without `plain`. sync: statistics of the same group
    on all processes. plain: as plain operations, for a compiler to fuse and for other types than float32.
    Returns y like x, and mean_GC and variance_GC (of the population, float32), without gradients.
    """
    return _Normalise.apply(x, weight_C, bias_C, eps, groups, sync, plain)


def keep_in_graph() -> None:
    """Before compiling: `normalise` becomes part of the graph it is in, and no graph of its own.

    torch.compile takes an autograd.Function as a graph in the graph, which it refuses to cut at DDP's buckets.
    """
    torch.compiler.allow_in_graph(normalise)
