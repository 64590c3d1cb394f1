"""Limits of an augmentation: memory bandwidth, measured in the same run, and the number of kernel launches."""

from collections.abc import Callable
from typing import Any

import torch

from .harness import Contestant

COPY = "copy"  # the name of the contestant


def copy_contestant(device: torch.device, size: int | None = None) -> Contestant:
    """A contestant that copies memory; its units are bytes read and written.

    size: bytes of the source; default: larger than any cache.
    """
    size = size or (1 << 31 if device.type == "cuda" else 1 << 28)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Contestant(COPY, lambda: target.copy_(source), 2 * size)


def launches(call: Callable[[], Any], device: torch.device) -> int | None:
    """Number of kernels, copies and fills that one call launches on the GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    call()
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize(device)
    return sum(event.device_type.name == "CUDA" for event in profile.events())
