"""torch.compile and DistributedDataParallel, and a first compiled step that can fall back to eager mode."""

import gc
import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..aware.learner import Learner
from ..distributed import SideChannel, rank, world_size
from ..errors import RunError
from ..models.norm_function import keep_in_graph

log = logging.getLogger(__name__)

Compile = Literal["auto", "on", "off"]


def compiles(choice: Compile, device: torch.device) -> bool:
    """Whether steps are compiled on this device; "auto" compiles on CUDA."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def wrap(
    learner: Learner, device: torch.device, *, compiled: bool, distributed: bool, cuda_graphs: bool = False
) -> nn.Module:
    """Compiles the learner and wraps it in DistributedDataParallel, each if requested.

    DDP wraps the compiled module, so that Dynamo does not trace DDP. Dynamo still splits the graph at DDP's
    buckets, so that gradients are exchanged during the backward pass (torch._dynamo.config.optimize_ddp).
    """
    module: nn.Module = learner
    if compiled:
        keep_in_graph()
        mode = "reduce-overhead" if cuda_graphs else None
        module = cast(nn.Module, torch.compile(module, dynamic=False, mode=mode))
    if not distributed:
        return module
    device_ids = [device.index] if device.type == "cuda" else None
    # Do not broadcast buffers from rank 0; torch 2.13 renamed the option.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, device_ids=device_ids, gradient_as_bucket_view=True, **options)


def probe(learner: Learner, forward_backward: Callable[[], object]) -> bool:
    """Runs a first forward and backward pass of compiled code. Returns whether it works on all processes.

    Buffers are restored and gradients cleared afterwards. If it fails on all processes, a warning is logged. Raises
    RunError if it fails on some processes only, because these would be out of step with the others.
    """
    before = [buffer.clone() for buffer in learner.buffers()]
    channel, reason = SideChannel(), ""
    try:
        forward_backward()
    except Exception as error:  # Dynamo, Inductor, Triton and C++ compilers have no common base class
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200] or type(error).__name__
    try:
        failed = channel.vote(bool(reason))
    except RuntimeError:  # other processes hang in a collective or have exited
        failed = 0
    if failed not in (0, world_size()) or (reason and not failed):
        where = f"on rank {rank()} and not on all" if reason else "on some"
        raise RunError(
            f"the first compiled step failed {where} processes ({reason or 'their logs say why'}); if the compiler is "
            "to blame, pass --compile off"
        )
    learner.zero_grad()
    with torch.no_grad():
        for buffer, value in zip(learner.buffers(), before, strict=True):
            buffer.copy_(value)  # running statistics of batch norm
    if failed:
        log.warning("torch.compile failed (%s); falling back to eager mode", reason)
        gc.collect()  # frees the hooks on parameters that wait for the interrupted backward pass
    return not failed


def keep_compiled_code(folder: Path) -> None:
    """Keeps the caches of torch.compile and Triton in `folder`, unless environment variables already set them."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((folder / "inductor").absolute()))
    os.environ.setdefault("TRITON_CACHE_DIR", str((folder / "triton").absolute()))
