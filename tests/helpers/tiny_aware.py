"""Tiny configurations and batches with every aware objective. `OBJECTIVES` has one of each kind, small."""

import copy
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
from fastaugself.aware.base import AwareInputs, Extra
from fastaugself.data.ragged import RaggedBatch
from fastaugself.runs.build import build_learner
from fastaugself.training.batch import initialize, make_batch
from fastaugself.training.optim import make_optimizer
from fastaugself.training.step import TrainStep

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


def inputs_of(learner, views, name, *, dtype=torch.float32, seed=0):
    """The input of one objective with random features, which have gradients; the method and the views are real."""
    random = torch.Generator().manual_seed(seed)
    D = learner.method.backbone.num_features

    def features(rows):
        return torch.randn(rows, D, generator=random, dtype=dtype).requires_grad_()

    extra = []
    for i in learner.requested[name]:
        made, request = views.extra[i], learner.requests[i]
        V, B = made.x_VBCHW.shape[:2]
        encoded = torch.stack([features(B) for _ in range(V)]).detach().requires_grad_() if request.encode else None
        extra.append(Extra(made, encoded))
    B = len(views.sizes_B2)
    return AwareInputs(
        (features(B), features(B)), views.params_VBP, views.sizes_B2, ({}, {}), tuple(extra), views, learner.method
    )


def exact(learner, name, inputs):
    """A copy of the objective, and the features of the global and the extra views, in float64 for formulas."""
    extra = [extra.features_VBD for extra in inputs.extra]
    features = [h.detach().double() for h in inputs.features]
    return (
        copy.deepcopy(learner.aware[name]).double(),
        features,
        [x if x is None else x.detach().double() for x in extra],
    )


def cross_entropy_of_pairs(z, other, temperature):
    """NT-Xent, written out: every row of [z; other] against all rows but itself."""
    rows = torch.cat([z, other])
    rows = rows / rows.norm(dim=1, keepdim=True)
    N, total = len(z), 0.0
    for i in range(2 * N):
        logits = torch.stack([rows[i] @ rows[j] / temperature for j in range(2 * N) if j != i])
        positive = rows[i] @ rows[(i + N) % (2 * N)] / temperature
        total = total + logits.logsumexp(0) - positive
    return total / (2 * N)


def normalized(x, norm=None):
    """Batch norm in training mode, written out. norm: its module, for affine parameters."""
    y = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    return y if norm is None or norm.weight is None else y * norm.weight + norm.bias


def run_mlp(module, x):
    """An MLP of this project, layer by layer."""
    for layer in module:
        if isinstance(layer, torch.nn.Linear):
            x = x @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        elif isinstance(layer, torch.nn.BatchNorm1d):
            x = normalized(x, layer)
        else:
            assert isinstance(layer, torch.nn.ReLU)
            x = x.clamp(min=0)
    return x
