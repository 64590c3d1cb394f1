"""Counts operations that would wait for a device: values read on the host, and shapes that depend on data."""

import contextlib

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Syncs(TorchDispatchMode):
    """Records operations that would sync with a device: values read on the host, and data-dependent shapes."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique", "repeat_interleave")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name.startswith("index") and any(getattr(i, "dtype", None) == torch.bool for i in _indices(args))
        if masked or any(known in name for known in self.NAMES):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def _indices(args):
    return args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()


@contextlib.contextmanager
def counted_syncs(monkeypatch):
    """The recorded host syncs, including Tensor methods that read memory without dispatch."""
    with monkeypatch.context() as patch, Syncs() as syncs:
        for name in ("tolist", "numpy", "cpu"):
            original = getattr(Tensor, name)

            def counted(self, *args, name=name, original=original, **kwargs):
                syncs.found.append(name)
                return original(self, *args, **kwargs)

            patch.setattr(Tensor, name, counted)
        yield syncs.found
