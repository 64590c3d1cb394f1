"""A small module of every method, and batches of random views, for the tests of losses."""

import torch

from fastaugself.aware.cassle import CASSLE, projector_type
from fastaugself.methods import (
    BYOL,
    DINO,
    METHODS,
    NNCLR,
    BarlowTwins,
    LeJEPA,
    MoCo,
    MoCoV3,
    SimCLR,
    SimSiam,
    Supervised,
    SwAV,
    VICReg,
)
from fastaugself.methods.base import BuildContext, Views
from fastaugself.models.build import Backbone, build_backbone

SMALL = {
    "moco": MoCo(queue=24, dim=16),
    "mocov3": MoCoV3(dim=16, hidden=32),
    "simsiam": SimSiam(dim=32, predictor_hidden=16),
    "simclr": SimCLR(dim=16),
    "byol": BYOL(dim=16, hidden=32, predictor_hidden=32),
    "swav": SwAV(dim=16, hidden=32, prototypes=12, freeze_steps=2),
    "barlow": BarlowTwins(dim=32),
    "vicreg": VICReg(dim=32),
    "nnclr": NNCLR(queue=24, dim=16, hidden=32, predictor_hidden=32),
    "lejepa": LeJEPA(dim=16, hidden=32, directions=8),
    "dino": DINO(dim=16, hidden=32, prototypes=12, freeze_steps=2),
    "supervised": Supervised(),
}


def build(name, cassle=None, **options):
    """The module of a method on a narrow ResNet; options: of the method, instead of those of `SMALL`."""
    torch.manual_seed(0)
    backbone, width = build_backbone(Backbone(name="resnet18", width=8, stem="small"))
    config = METHODS[name](**options) if options else SMALL[name]
    return config.build(BuildContext(backbone, width, num_classes=5, projector_type=projector_type(cassle or CASSLE())))


def views(B=6, condition=None, local_crops=0, seed=0):
    """Views of 16 pixels and local crops of 8 pixels."""
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(2, B, 3, 16, 16, generator=random)
    local = torch.rand(local_crops, B, 3, 8, 8, generator=random) if local_crops else None
    return Views(x, torch.arange(B) % 5, condition, local)
