"""Pretraining methods, one a file, behind one protocol (see base.py)."""

from .barlow import BarlowTwins
from .byol import Byol
from .moco import MoCo
from .mocov3 import MoCoV3
from .simclr import SimClr
from .simsiam import SimSiam
from .supervised import Supervised
from .swav import SwAV

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
