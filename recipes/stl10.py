"""STL10 in the setting of the AugSelf paper: ResNet-18 at 96 px, 200 epochs; baseline, AugSelf, CASSLE, and both.

    fastaugself write stl10_binary train.beton
    python recipes/stl10.py --preset simsiam-augself --data.train train.beton

`--preset METHOD`, `METHOD-augself`, `METHOD-cassle` or `METHOD-augself-cassle`, for moco, simsiam, simclr, byol, swav,
barlow; default: simsiam-augself. All variants of a method use the same learning rate. `simsiam-augself-rotation` and
`simsiam-augself-solarize` add the augmentation and the head of the paper's ablations; `--augself.flip 1`,
`--augself.blur 1` and weights of 0 give the other ablations, and `--augself-only` trains without the method's loss.

Published (Lee 2021, arXiv 2111.09613; linear evaluation after pretraining on train and unlabeled, 105,000 photos, %):

|                 | CIFAR-10 | CIFAR-100 | Food | MIT67 | Pets | Flowers | Caltech | Cars | Aircraft | DTD | SUN |
|-----------------|-------|-------|-------|-------|-------|-------|-------|-------|-------|-------|-------|
| simsiam         | 82.35 | 54.90 | 33.99 | 39.15 | 44.90 | 59.19 | 66.33 | 16.85 | 26.06 | 42.57 | 29.05 |
| simsiam-augself | 82.76 | 58.65 | 41.58 | 45.67 | 48.42 | 72.18 | 72.75 | 21.17 | 33.17 | 47.02 | 34.14 |
| moco            | 81.80 | 53.75 | 33.69 | 39.01 | 42.34 | 61.01 | 64.15 | 16.09 | 26.63 | 41.20 | 28.50 |
| moco-augself    | 82.45 | 57.17 | 36.91 | 41.67 | 43.80 | 66.96 | 66.02 | 17.53 | 28.02 | 45.21 | 30.93 |

As in their code: heads, schedule by epoch, weight decay on all parameters, batch size 256, blur of 9 taps, and the
saturation of kornia 0.4.1, which scales S of HSV (`--augment.saturation blend` for torchvision's). Different from their
code: MoCo's queue holds keys (pass `--method.queue-source query` for theirs), each sample has its own order of the
colour jitter, BYOL's projector has a hidden layer of 4096 (theirs: the width of the features), and BYOL's momentum
changes at every step. Their 410 frozen steps of SwAV count from 1, so they are 409. No
result is published for
CASSLE on STL10; its projectors are those of its ImageNet-100 code.

`--preset simclr-stl`, `--preset simclr-star` and `--preset simclr-care` are other methods that were published on STL10
with a ResNet-18, in AugSelf's setting: STL's own has the same optimizer, learning rate, batch size and epochs (Yu et
al. 2024, arXiv 2501.08712), STAR's 200 epochs and 16 experts (45.55 % mean transfer for SimCLR, 49.54 with EquiMod,
53.07 with STAR; arXiv 2510.27222), CARE's a temperature of 0.5 (84.19 % for SimCLR, 84.64 with CARE; Gupta et al. 2023,
arXiv 2306.13924). Their optimizers and views are not known where they are not named here.
This recipe has not been run yet.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastaugself import (
    BYOL,
    CARE,
    CASSLE,
    STL,
    Augment,
    AugSelf,
    Backbone,
    BarlowTwins,
    EquiMod,
    MoCo,
    Optim,
    Pretrain,
    SimCLR,
    SimSiam,
    SwAV,
    ViewPolicy,
    run,
)
from fastaugself.methods import AnyMethod

METHODS: dict[str, AnyMethod] = {
    "moco": MoCo(projector_norm=True),
    "simsiam": SimSiam(layers=2, affine=True),
    "simclr": SimCLR(gather=False),
    "byol": BYOL(momentum=0.996),
    "swav": SwAV(prototypes=100, freeze_steps=409, gather=False, reduction="sum"),
    "barlow": BarlowTwins(),
}
PARTS = {
    "": (AugSelf(crop=0, color=0), CASSLE()),
    "-augself": (AugSelf(crop=1.0, color=1.0), CASSLE()),
    "-cassle": (AugSelf(crop=0, color=0), CASSLE(conditioning="concat")),
    "-augself-cassle": (AugSelf(crop=1.0, color=1.0), CASSLE(conditioning="concat")),
}


def stl10(method: str = "simsiam", parts: str = "-augself") -> Pretrain:
    """A method on STL10, ResNet-18 at 96 px, 200 epochs, as in the AugSelf paper."""
    augself, cassle = PARTS[parts]
    optim = Optim(lr=0.03, momentum=0.9, weight_decay=5e-4, schedule="cosine", schedule_by="epoch")
    if method == "barlow":  # CASSLE's code; AugSelf's has no Barlow Twins
        optim = Optim(lr=0.05, weight_decay=1e-4, warmup_epochs=10, norm_bias_lr_scale=0.024)
    return Pretrain(
        view=ViewPolicy.moco_v2(96),
        augment=Augment(mean=(0.43, 0.42, 0.39), std=(0.27, 0.26, 0.27), saturation="hsv"),
        backbone=Backbone(name="resnet18", batch_norm="sync", zero_init_residual=True, init="torch"),
        method=METHODS[method],
        augself=augself,
        cassle=cassle,
        optim=optim,
        run=Path("runs/stl10") if (method, parts) == ("simsiam", "-augself") else Path(f"runs/stl10_{method}{parts}"),
        epochs=200,
        batch_size=256,
    )


def rotation() -> Pretrain:
    """SimSiam + AugSelf with rotated views and the rotation head."""
    base = stl10()
    return replace(
        base,
        view=replace(base.view, rotation=0.5),
        augself=AugSelf(crop=1.0, color=1.0, rotation=1.0),
        run=Path("runs/stl10_simsiam-augself-rotation"),
    )


def solarize() -> Pretrain:
    """SimSiam + AugSelf with solarized views (before gray, as in the paper's code) and the solarization head.

    The loss is the fixed one; the paper's, `--augself.mode published`, compares every prediction with every target.
    """
    base = stl10()
    return replace(
        base,
        view=replace(base.view, solarize=0.5, solarize_threshold=(0.0, 1.0)),
        augment=replace(base.augment, solarize_before_gray=True),
        augself=AugSelf(crop=1.0, color=1.0, solarize=1.0, mode="fixed"),
        run=Path("runs/stl10_simsiam-augself-solarize"),
    )


AWARE = {
    "stl": STL(),
    "star": EquiMod(residual=True, experts=16),
    "care": CARE(weight=0.01, chunk=32),
}


def aware(name: str) -> Pretrain:
    """SimCLR with STL, EquiMod in STAR's form, or CARE."""
    base = stl10("simclr", "")
    method = SimCLR(gather=False, temperature=0.5 if name == "care" else 0.2)
    return replace(base, method=method, aware=(AWARE[name],), run=Path(f"runs/stl10_simclr-{name}"))


PRESETS: dict[str, Callable[[], Pretrain]] = {
    method + parts: partial(stl10, method, parts) for method in METHODS for parts in PARTS
}
PRESETS |= {"simsiam-augself-rotation": rotation, "simsiam-augself-solarize": solarize}
PRESETS |= {f"simclr-{name}": partial(aware, name) for name in AWARE}

if __name__ == "__main__":
    run(stl10, **PRESETS)
