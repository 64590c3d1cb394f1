"""A kernel launch as a value: the back-end runs it, the check without a GPU compiles it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid, its arguments in order, its compile-time constants and its compiler options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: Sequence[Any]
    constants: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


def run(launches: Sequence[Launch], device: torch.device) -> None:
    """Launches the kernels on the current stream of `device`."""
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        for launch in launches:
            launch.kernel[launch.grid](*launch.arguments, **launch.constants, **launch.options)


def require_device(tensor: Tensor, kernel: Any) -> None:
    """Raises ValueError if `kernel` cannot access the tensor's memory."""
    if not tensor.is_cuda and isinstance(kernel, triton.JITFunction):
        raise ValueError(
            f'backend "triton" needs tensors on a CUDA device, got {tensor.device}; move them, pass backend="auto", or '
            "set TRITON_INTERPRET=1 before Python starts (slow, for tests)"
        )
