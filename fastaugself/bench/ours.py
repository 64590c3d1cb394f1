"""Our contestants: the fused back-ends, and the oracle view by view, on batches, and compiled."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from fastaugself_kernels import augment, augself_targets, descriptors, sample_params
from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from ..errors import RunError
from .batched_oracle import augment_batched
from .work import Ready, Work

Emission = Literal["views", "targets", "descriptors"]
EXACT: dict[str, Any] = {"rounding": "none", "mean": (0, 0, 0), "std": (1, 1, 1)}
SMALL_BATCH = 8  # photos per call of the oracle; on a CPU its time per view does not depend on it


def fused(work: Work, emit: Emission = "views") -> Ready:
    """Parameters and views from the fused back-end.

    emit: "targets" also computes AugSelf's targets in both directions, "descriptors" these, CASSLE's descriptors and
    the colour shift.
    """
    epoch = 0

    def call() -> Tensor:
        nonlocal epoch
        epoch += 1
        params = sample_params(work.ids_B, work.sizes_B2, work.policies, seed=0, epoch=epoch)
        if emit == "descriptors":
            views, shift = augment(
                work.pixels_BHWC, None, work.sizes_B2, params, size=work.size, dtype=work.dtype, color_shift=True
            )
            descriptors(params, work.sizes_B2, work.policies, shift)
        else:
            views = augment(work.pixels_BHWC, None, work.sizes_B2, params, size=work.size, dtype=work.dtype)
        if emit != "views":
            augself_targets(params, work.sizes_B2, work.policies)
        return views.flatten(0, 1)

    return Ready(call, work.views * work.batch)


def graphed(work: Work) -> Ready:
    """The fused views as a CUDA graph; the parameters are drawn outside it."""
    params = sample_params(work.ids_B, work.sizes_B2, work.policies, seed=0, epoch=0)

    def make() -> Tensor:
        return augment(work.pixels_BHWC, None, work.sizes_B2, params, size=work.size, dtype=work.dtype).flatten(0, 1)

    replay, views = _capture(make)
    epoch = 0

    def call() -> Tensor:
        nonlocal epoch
        epoch += 1
        params.copy_(sample_params(work.ids_B, work.sizes_B2, work.policies, seed=0, epoch=epoch))
        replay()
        return views

    return Ready(call, work.views * work.batch)


def _capture(make: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Captures `make` in a CUDA graph; returns its replay function and its static output."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        make()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = make()
    return graph.replay, result


def check_fused(work: Work) -> float:
    """The largest difference of our views from the oracle's on the CPU, in [0, 1]; RunError beyond 1e-5."""
    few = work.of(4)
    params = sample_params(few.ids_B, few.sizes_B2, few.policies, seed=1, epoch=0)
    got = augment(few.pixels_BHWC, None, few.sizes_B2, params, size=few.size, **EXACT)
    error = (got.cpu() - _oracle_of(few, params, **EXACT)).abs().max().item()
    if error > 1e-5:
        raise RunError(f"our views differ from the oracle by {error:.1e}; nothing is timed")
    return error


def _oracle_of(work: Work, params_VBP: Tensor, **options: Any) -> Tensor:
    """The oracle's views, computed on the CPU: on a GPU, cuDNN would round to TF32."""
    args = (work.pixels_BHWC.cpu(), None, work.sizes_B2.cpu(), params_VBP.cpu())
    return augment(*args, size=work.size, backend="reference", **options)


def oracle(work: Work) -> Ready:
    """The reference back-end, view by view."""

    def views(part: Work, params_VBP: Tensor) -> Tensor:
        args = (part.pixels_BHWC, None, part.sizes_B2, params_VBP)
        return augment(*args, size=part.size, backend="reference").flatten(0, 1)

    return _in_parts(work, SMALL_BATCH, views)


def oracle_batched(work: Work) -> Ready:
    """The oracle's functions on whole batches."""
    return _batched(work, augment_batched)


def oracle_compiled(work: Work) -> Ready:
    """The oracle's functions on whole batches under torch.compile; on a GPU with CUDA graphs."""
    mode = "reduce-overhead" if work.device.type == "cuda" else None
    return _batched(work, torch.compile(augment_batched, dynamic=False, mode=mode))


def _batched(work: Work, function: Callable[..., Tensor]) -> Ready:
    mean, std = (torch.tensor(values, device=work.device) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def views(part: Work, params_VBP: Tensor) -> Tensor:
        # The next replay overwrites the output of a CUDA graph.
        made = [function(part.pixels_BHWC, rows, mean, std, size=part.size).clone() for rows in params_VBP.unbind()]
        return torch.cat(made)

    return _in_parts(work, work.batch if work.device.type == "cuda" else SMALL_BATCH, views)


def _in_parts(work: Work, batch: int, views: Callable[[Work, Tensor], Tensor]) -> Ready:
    """Processes the photos in parts, and compares the first part with the oracle.

    The mean error is compared, because a few pixels may be rounded the other way.
    """
    parts = [work.of(batch, start) for start in range(0, work.batch - batch + 1, batch)] or [work]
    first, epoch = parts[0], 0
    params = sample_params(first.ids_B, first.sizes_B2, first.policies, seed=1, epoch=0)
    got = views(first, params).unflatten(0, params.shape[:2])[:, :4]
    error = (got.cpu() - _oracle_of(first.of(4), params[:, :4].contiguous())).abs().mean().item()
    if error > 1e-3:
        raise ValueError(f"differs from the oracle by {error:.1e} on average")

    def call() -> Tensor:
        nonlocal epoch
        epoch += 1
        part = parts[epoch % len(parts)]
        params = sample_params(part.ids_B, part.sizes_B2, part.policies, seed=0, epoch=epoch)
        return views(part, params)

    return Ready(call, first.views * first.batch, error)
