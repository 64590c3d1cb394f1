"""Pretraining methods, one a file, behind one protocol (see base.py)."""

from .barlow import BarlowTwins as BarlowTwins
from .byol import Byol as Byol
from .moco import MoCo as MoCo
from .mocov3 import MoCoV3 as MoCoV3
from .simclr import SimClr as SimClr
from .simsiam import SimSiam as SimSiam
from .supervised import Supervised as Supervised
from .swav import SwAV as SwAV

AnyMethod = MoCo | MoCoV3 | SimSiam | SimClr | Byol | SwAV | BarlowTwins | Supervised

METHODS: dict[str, type] = {
    "moco": MoCo,
    "mocov3": MoCoV3,
    "simsiam": SimSiam,
    "simclr": SimClr,
    "byol": Byol,
    "swav": SwAV,
    "barlow": BarlowTwins,
    "supervised": Supervised,
}
"""Options of each method, by the name that config.json gives it."""
