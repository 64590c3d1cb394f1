"""Augmentation-aware pretraining of image encoders.

The public names come from `names.py`, which is imported when the first of them is used: `fastaugself --help`, `write`,
`info` and `verify` need none of them, nor torch, which takes seconds to import.
"""
# ruff: noqa: F403, F405

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .names import *

__all__ = [
    "AugSelf", "Augment", "Backbone", "BarlowTwins", "Byol", "Cassle", "Checkpoint", "Data", "Log", "MoCo", "MoCoV3",
    "Optim", "Pretrain", "SimClr", "SimSiam", "Supervised", "SwAV", "ViewPolicy", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # called for what is not there yet (PEP 562)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(".names", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
