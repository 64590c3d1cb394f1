"""A pool of CPU memory for large tensors.

PyTorch returns the tens of megabytes of a batch of views to the system at every step and asks for them again, and
touching fresh pages takes as long as all the arithmetic of the augmentation. Here the memory of a tensor that is no
longer referred to is kept for the next tensor of the same size.
"""

import os
import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

WORTHWHILE = 1 << 20  # bytes; smaller tensors come from PyTorch
KEPT = 6  # free blocks that are kept, the latest ones

_free: deque[np.ndarray] = deque()
_lock = threading.RLock()  # a block can be freed by the garbage collector while this thread is in `_take`
if hasattr(os, "register_at_fork"):  # or a child could find it held by a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """`torch.empty(*shape, dtype=dtype)` on the CPU, in memory of an earlier tensor of this size if there is any."""
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size < WORTHWHILE:
        return torch.empty(*shape, dtype=dtype)
    block = _take(size)
    lease = block.view()  # what the tensor refers to: it dies with the tensor's storage, the block does not
    weakref.finalize(lease, _give_back, block).atexit = False
    return torch.from_numpy(lease).view(dtype).view(*shape)


def _take(size: int) -> np.ndarray:
    """Returns a block of `size` bytes, aligned to a cache line."""
    with _lock:
        for i, block in enumerate(_free):
            if block.size == size:
                del _free[i]
                return block
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _give_back(block: np.ndarray) -> None:
    with _lock:
        _free.append(block)
        while len(_free) > KEPT:
            _free.popleft()
