"""Any method on about ten thousand small photos, with anything that learns from the parameters; ResNet-18 at 64 px.

    python recipes/study.py --preset simsiam-augself --data.train photos/train --data.val photos/val

The presets differ in the method and its variant only: `--preset METHOD`, `METHOD-augself`, `METHOD-cassle` or
`METHOD-augself-cassle`, for moco, mocov3, simsiam, simclr, byol, swav, barlow, vicreg, nnclr, dino, lejepa, supervised
(which has no projector for CASSLE). Further variants of every method: `-augself-layer3` (AugSelf on inner features),
`-essl`, `-equimod`, `-star` (EquiMod with STAR's options), `-stl`, `-care`, `-sen`, `-sie`, `-seqjepa`, `-predictor`
(simsiam, byol, mocov3, nnclr) and `-ser` (on a ViT-Ti/16 with AdamW; needs timm). `--preset seqjepa`, `--preset sen`
and `--preset sie` train these alone. Three choices that cost or save time, on any method without its objectives:
`-multicrop` (four local crops; not supervised), `-sizes` (small views first) and `-fastmoco` (moco, mocov3).
Objectives have their published weights; E-SSL's small view and SER's share of photos are fitted to small views and
batches. All variants of a method but `-ser` use its baseline's learning rate. For larger views, pass `--view.size 96
--augment.blur-kernel 9`. Heads, weights and weight decay are those of AugSelf's STL10 setting (Lee 2021, arXiv
2111.09613), LeJEPA's learning rate is that of its authors' Imagenette example; queues, momentum, prototypes and frozen
steps are this project's choice for about forty steps per epoch. No result is published for it. The longest run is that
of `studies/augself/study.py` with moco at 32 px, six epochs and three seeds of each variant
(results/intel-xeon-2-cores/study.json, discussed in docs/evaluation.md). In 300 steps at 32 px with AugSelf, the
effective rank of the features rose from 44 to between 73 and 128 (of 256) with eleven of the twelve methods. It fell to
25 with Barlow Twins, whose rank at 48 px stayed at 36 in the only one of four settings in which it did not fall. The
records are collapse.json in results/amd-epyc-2-cores and results/intel-xeon-2-cores, from `scripts/collapse_check.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastaugself import (
    BYOL,
    CARE,
    CASSLE,
    DINO,
    ESSL,
    NNCLR,
    SEN,
    SER,
    SIE,
    STL,
    AugSelf,
    Backbone,
    BarlowTwins,
    ConditionalPredictor,
    EquiMod,
    LeJEPA,
    MoCo,
    MoCoV3,
    Optim,
    Pretrain,
    SeqJEPA,
    SimCLR,
    SimSiam,
    Supervised,
    SwAV,
    VICReg,
    ViewPolicy,
    run,
)
from fastaugself.methods import AnyMethod, MethodConfig

SGD = Optim(lr=0.06, momentum=0.9, weight_decay=5e-4, warmup_epochs=5)
METHODS: dict[str, tuple[AnyMethod, Optim]] = {
    "moco": (MoCo(queue=4096, momentum=0.99, projector_norm=True), SGD),
    "mocov3": (MoCoV3(hidden=2048, momentum=0.99), SGD),
    "simsiam": (SimSiam(layers=2, affine=True), SGD),
    "simclr": (SimCLR(), SGD),
    "byol": (BYOL(momentum=0.99), SGD),
    "swav": (SwAV(prototypes=100, freeze_steps=40), SGD),
    # Its loss sums over 1,024 dimensions: in 300 steps at 0.4 the features lost rank, at 0.005 they did not.
    "barlow": (BarlowTwins(dim=1024), Optim(lr=0.005, weight_decay=1e-4, norm_bias_lr_scale=0.024, warmup_epochs=10)),
    # At 0.005 its rank rose as far in 300 steps, its k-NN accuracy less.
    "vicreg": (VICReg(dim=1024), Optim(lr=0.03, weight_decay=1e-4, warmup_epochs=10)),
    "nnclr": (NNCLR(queue=4096), SGD),
    "dino": (DINO(prototypes=1024, momentum=0.99, freeze_steps=40), SGD),
    "lejepa": (LeJEPA(), Optim(name="adamw", lr=2e-3, weight_decay=5e-4, warmup_epochs=1)),
    "supervised": (Supervised(), SGD),
}
VIT = Backbone(name="timm:vit_tiny_patch16_224")
ADAMW = Optim(name="adamw", lr=5e-4, weight_decay=0.05, warmup_epochs=5)
OFF = AugSelf(crop=0, color=0)
SMALL_VIEW = ViewPolicy(size=32, scale=(0.1, 0.5), blur=0.1)
PARTS: dict[str, dict[str, Any]] = {
    "": {},
    "-augself": {"augself": AugSelf(crop=1.0, color=1.0)},
    "-cassle": {"cassle": CASSLE(conditioning="concat")},
    "-augself-cassle": {"augself": AugSelf(crop=1.0, color=1.0), "cassle": CASSLE(conditioning="concat")},
    "-augself-layer3": {"augself": AugSelf(crop=1.0, color=1.0, layer="layer3")},
    "-predictor": {"predictor": ConditionalPredictor(conditioning="concat")},
    "-essl": {"aware": (ESSL(weight=0.4, view=SMALL_VIEW),)},
    "-equimod": {"aware": (EquiMod(),)},
    "-star": {"aware": (EquiMod(residual=True, experts=8),)},
    "-stl": {"aware": (STL(),)},
    "-care": {"aware": (CARE(weight=0.01),)},
    "-sen": {"aware": (SEN(),)},
    "-sie": {"aware": (SIE(),)},
    "-seqjepa": {"aware": (SeqJEPA(),)},
    "-multicrop": {"num_local_crops": 4, "local_crop": replace(SMALL_VIEW, scale=(0.05, 0.2), blur=0.5)},
    "-sizes": {"size_schedule": ("0:32", "0.5:48", "0.9:64")},
    "-fastmoco": {},
    "-ser": {"aware": (SER(fraction=0.03),), "backbone": VIT, "optim": ADAMW},
}
ALONE = {"sen": SEN(only=True), "sie": SIE(only=True), "seqjepa": SeqJEPA(only=True)}


def study(method: str = "moco", parts: str = "-augself") -> Pretrain:
    """A method on small photos, ResNet-18 at 64 px, 200 epochs."""
    options, optim = METHODS[method]
    if parts == "-fastmoco" and isinstance(options, MoCo | MoCoV3):
        options = replace(options, split=2)
    base = Pretrain(
        view=ViewPolicy.moco_v2(64),
        backbone=Backbone(name="resnet18", batch_norm="sync", zero_init_residual=True),
        method=options,
        augself=OFF,
        optim=optim,
        run=Path("runs/study") if (method, parts) == ("moco", "-augself") else Path(f"runs/study_{method}{parts}"),
        epochs=200,
        batch_size=256,
    )
    return replace(base, **PARTS[parts])


def alone(name: str) -> Pretrain:
    """An objective without a base method's loss."""
    return replace(study("simclr", ""), aware=(ALONE[name],), run=Path(f"runs/study_{name}"))


def fits(method: MethodConfig, parts: str) -> bool:
    """Whether a variant exists for a method: some need its projector, its predictor or multi-crop."""
    needs = {
        "-predictor": method.has_predictor,
        "-multicrop": method.multi_crop,
        "-fastmoco": isinstance(method, MoCo | MoCoV3),
        **dict.fromkeys(("-care", "-star", "-cassle", "-augself-cassle"), method.has_projector),
    }
    return needs.get(parts, True)


PRESETS: dict[str, Callable[[], Pretrain]] = {
    method + parts: partial(study, method, parts)
    for method, (options, _) in METHODS.items()
    for parts in PARTS
    if fits(options, parts)
}
PRESETS |= {name: partial(alone, name) for name in ALONE}

if __name__ == "__main__":
    run(study, **PRESETS)
