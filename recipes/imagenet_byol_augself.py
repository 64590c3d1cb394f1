"""BYOL + AugSelf, ResNet-50, ImageNet-1k, 300 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_byol_augself.py --data.train train.beton --data.val val.beton

BYOL's own setting for 300 epochs (Grill 2020, arXiv 2006.07733; learning rate, weight decay and momentum of its
repository's presets): asymmetric views, LARS with a batch size of 4096. `--preset long` is its 1000-epoch setting
(74.3 % linear without AugSelf), `--preset sgd` a smaller one: 100 epochs of SGD with a batch size of 1024. AugSelf's
ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import BYOL, AugSelf, Backbone, Optim, Pretrain, ViewPolicy, run


def imagenet_byol_augself() -> Pretrain:
    """BYOL + AugSelf, ResNet-50, ImageNet-1k, 300 epochs."""
    return Pretrain(
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=BYOL(momentum=0.99, last_bias=False),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(name="lars", lr=0.3, momentum=0.9, weight_decay=1e-6, decay_norm_bias=False, warmup_epochs=10),
        run=Path("runs/imagenet_byol_augself"),
        epochs=300,
        batch_size=4096,
    )


def long() -> Pretrain:
    """BYOL's setting for 1000 epochs."""
    base = imagenet_byol_augself()
    return replace(
        base,
        method=BYOL(momentum=0.996, last_bias=False),
        optim=replace(base.optim, lr=0.2, weight_decay=1.5e-6),
        run=Path("runs/imagenet_byol_augself_long"),
        epochs=1000,
    )


def sgd() -> Pretrain:
    """SGD with a batch size of 1024, 100 epochs."""
    return replace(
        imagenet_byol_augself(),
        optim=Optim(lr=0.1, momentum=0.9, weight_decay=1e-4, warmup_epochs=10),
        run=Path("runs/imagenet_byol_augself_sgd"),
        epochs=100,
        batch_size=1024,
    )


if __name__ == "__main__":
    run(imagenet_byol_augself, long=long, sgd=sgd)
