"""Pretraining methods, one per file, with a common interface (see base.py)."""

from collections.abc import Callable
from typing import TypeVar

from .barlow import BarlowTwins as BarlowTwins
from .base import MethodConfig as MethodConfig
from .byol import BYOL as BYOL
from .dino import DINO as DINO
from .lejepa import LeJEPA as LeJEPA
from .moco import MoCo as MoCo
from .mocov3 import MoCoV3 as MoCoV3
from .nnclr import NNCLR as NNCLR
from .simclr import SimCLR as SimCLR
from .simsiam import SimSiam as SimSiam
from .supervised import Supervised as Supervised
from .swav import SwAV as SwAV
from .vicreg import VICReg as VICReg

AnyMethod = MoCo | MoCoV3 | SimSiam | SimCLR | BYOL | SwAV | BarlowTwins | VICReg | NNCLR | LeJEPA | DINO | Supervised

METHODS: dict[str, type[MethodConfig]] = {
    "moco": MoCo,
    "mocov3": MoCoV3,
    "simsiam": SimSiam,
    "simclr": SimCLR,
    "byol": BYOL,
    "swav": SwAV,
    "barlow": BarlowTwins,
    "vicreg": VICReg,
    "nnclr": NNCLR,
    "lejepa": LeJEPA,
    "dino": DINO,
    "supervised": Supervised,
}
"""The options class of each method, by its name in config.json."""

T = TypeVar("T", bound=type[MethodConfig])


def register(name: str) -> Callable[[T], T]:
    """Class decorator that registers the options of a custom method as `name` in config.json (docs/new-method.md).

    Raises ValueError if another method has this name.
    """

    def add(options: T) -> T:
        if METHODS.get(name, options).__qualname__ != options.__qualname__:
            raise ValueError(f"the name {name} belongs to {METHODS[name].__qualname__}; register under another name")
        METHODS[name] = options
        return options

    return add
