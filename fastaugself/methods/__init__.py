"""Pretraining methods, one a file, behind one protocol (see base.py)."""

from collections.abc import Callable
from typing import TypeVar

from .barlow import BarlowTwins as BarlowTwins
from .base import MethodConfig as MethodConfig
from .byol import BYOL as BYOL
from .moco import MoCo as MoCo
from .mocov3 import MoCoV3 as MoCoV3
from .simclr import SimCLR as SimCLR
from .simsiam import SimSiam as SimSiam
from .supervised import Supervised as Supervised
from .swav import SwAV as SwAV

AnyMethod = MoCo | MoCoV3 | SimSiam | SimCLR | BYOL | SwAV | BarlowTwins | Supervised

METHODS: dict[str, type[MethodConfig]] = {
    "moco": MoCo,
    "mocov3": MoCoV3,
    "simsiam": SimSiam,
    "simclr": SimCLR,
    "byol": BYOL,
    "swav": SwAV,
    "barlow": BarlowTwins,
    "supervised": Supervised,
}
"""Options of each method, by the name that config.json gives it."""

T = TypeVar("T", bound=type[MethodConfig])


def register(name: str) -> Callable[[T], T]:
    """Decorator that makes a method of a recipe's own known to config.json, under `name` (docs/new-method.md).

    Raises ValueError where another method has the name.
    """

    def add(options: T) -> T:
        if METHODS.get(name, options).__qualname__ != options.__qualname__:
            raise ValueError(f"the name {name} belongs to {METHODS[name].__qualname__}; register under another")
        METHODS[name] = options
        return options

    return add
