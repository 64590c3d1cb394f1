"""Tiny configurations and batches with every aware objective. `OBJECTIVES` has one of each kind, small."""

import dataclasses

import torch

from fastaugself import (
    CARE,
    ESSL,
    SEN,
    SER,
    SIE,
    STL,
    AugSelf,
    Backbone,
    Data,
    EquiMod,
    MoCo,
    Optim,
    Pretrain,
    SeqJEPA,
    SimCLR,
    SimSiam,
    ViewPolicy,
)
from fastaugself.data.ragged import RaggedBatch
from fastaugself.runs.build import build_learner
from fastaugself.training.batch import initialize, make_batch
from fastaugself.training.optim import make_optimizer
from fastaugself.training.trainer import TrainStep

SIZE = 16
CPU = torch.device("cpu")
OFF = AugSelf(crop=0.0, color=0.0)
OBJECTIVES = {
    "augself": AugSelf(crop=0.5, color=0.5, hidden=8),
    "essl": ESSL(weight=0.4, view=ViewPolicy(size=12, scale=(0.2, 0.8)), hidden=16, dim=8),
    "equimod": EquiMod(hidden=16, dim=8, condition_dim=6),
    "stl": STL(hidden=16, dim=8),
    "care": CARE(weight=0.5, chunk=4),
    "seqjepa": SeqJEPA(action_dim=8, depth=2, hidden=16),
    "sen": SEN(hidden=16, dim=8),
    "sie": SIE(hidden=16, dim=8),
    "ser": SER(layer="block2", fraction=0.5, hidden=16),
}
METHODS = {
    "moco": MoCo(queue=32, dim=8),
    "simclr": SimCLR(dim=8),
    "simsiam": SimSiam(dim=16, predictor_hidden=8),
}
BACKBONES = {"ser": ("timm:test_vit", 48)}
"""Objectives that need another backbone than a ResNet: its name, and the size of the views."""


def config_of(*names, method="simclr", B=8, **changes):
    """A configuration with the named objectives of `OBJECTIVES`, and without AugSelf unless it is named."""
    chosen = {name: OBJECTIVES[name] for name in names}
    augself = chosen.pop("augself", OFF)
    name, size = next((BACKBONES[name] for name in names if name in BACKBONES), ("resnet18", SIZE))
    backbone = Backbone(name=name) if name.startswith("timm:") else Backbone(name=name, width=4, stem="small")
    options = {
        "data": Data(source="native"), "view": ViewPolicy.moco_v2(size), "backbone": backbone,
        "method": METHODS.get(method, method), "augself": augself, "aware": tuple(chosen.values()), "batch_size": B,
        "optim": Optim(lr=0.05),
    }  # fmt: skip
    return Pretrain(**{**options, **changes})


def photos(count=8, seed=0, first=0):
    """Photos of random pixels and odd sizes, with the sample ids from `first` on."""
    random = torch.Generator().manual_seed(seed)
    sizes_B2 = torch.randint(20, 41, (count, 2), generator=random, dtype=torch.int32)
    lengths_B = sizes_B2.long().prod(1) * 3
    pixels = torch.randint(0, 256, (int(lengths_B.sum()),), generator=random, dtype=torch.uint8)
    offsets_B = lengths_B.cumsum(0) - lengths_B
    labels_B = torch.randint(4, (count,), generator=random)
    return RaggedBatch(pixels, offsets_B, sizes_B2, labels_B, torch.arange(count) + first)


def part(batch, s):
    """The photos `s` (a slice) of a batch of photos."""
    return RaggedBatch(batch.pixels, batch.offsets_B[s], batch.sizes_B2[s], batch.labels_B[s], batch.ids_B[s])


def views_of(config, batch=None, epoch=0):
    """The input of a step."""
    return make_batch(config, photos(config.batch_size) if batch is None else batch, epoch, torch.float32).views


def learner_of(config, **options):
    """A learner with standardised descriptors, as at the start of a run."""
    learner = build_learner(config, num_classes=4, **options)
    initialize(config, photos(64).sizes_B2.numpy(), learner)
    return learner


def step_of(config, learner=None, **options):
    """A training step; `learner` is built from the configuration if it is not given."""
    learner = learner_of(config) if learner is None else learner
    optimizer = make_optimizer(learner, config.optim, constant_lr=learner.method.constant_lr)
    return TrainStep(learner, optimizer, device=CPU, **options)


def without(config):
    """The same configuration without objectives."""
    return dataclasses.replace(config, augself=OFF, aware=())
