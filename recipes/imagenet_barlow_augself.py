"""Barlow Twins + AugSelf, ResNet-50, ImageNet-1k, 1000 epochs.

    torchrun --nproc-per-node=16 recipes/imagenet_barlow_augself.py --data.train train.beton --data.val val.beton

Barlow Twins' own setting (Zbontar 2021, arXiv 2103.03230; 73.3 % linear without AugSelf in its repository's README):
BYOL's views, LARS with a batch size of 2048, a learning rate that ends at 0.1 % of its peak. `--preset sgd` is smaller:
300 epochs of SGD with a batch size of 256, with the values of CASSLE's ImageNet-100 code. `--preset imagenette_vits` is
the setting whose speed and accuracy stable-pretraining publishes (benchmarks/imagenet10 at 11bedae: 83.0 % linear on
Imagenette; needs timm): ViT-S/16, AdamW, a batch size of 256 and 200 epochs, without AugSelf. AugSelf's ImageNet-100
weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, BarlowTwins, Optim, Pretrain, ViewPolicy, run


def imagenet_barlow_augself() -> Pretrain:
    """Barlow Twins + AugSelf, ResNet-50, ImageNet-1k, 1000 epochs."""
    return Pretrain(
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=BarlowTwins(),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(
            name="lars",
            lr=0.2,
            min_lr=0.2e-3,
            weight_decay=1e-6,
            decay_norm_bias=False,
            norm_bias_lr_scale=0.024,
            momentum=0.9,
            warmup_epochs=10,
        ),
        run=Path("runs/imagenet_barlow_augself"),
        epochs=1000,
        batch_size=2048,
    )


def sgd() -> Pretrain:
    """SGD with a batch size of 256, 300 epochs."""
    return replace(
        imagenet_barlow_augself(),
        optim=Optim(lr=0.05, momentum=0.9, weight_decay=1e-4, warmup_epochs=10, norm_bias_lr_scale=0.024),
        run=Path("runs/imagenet_barlow_augself_sgd"),
        epochs=300,
        batch_size=256,
    )


def imagenette_vits() -> Pretrain:
    """ViT-S/16 on Imagenette without AugSelf, 200 epochs, as stable-pretraining measures it."""
    return Pretrain(
        view=ViewPolicy(size=224, scale=(0.08, 1.0), saturation=0.2),
        backbone=Backbone(name="timm:vit_small_patch16_224"),
        method=BarlowTwins(dim=2048, redundancy=5.1e-3),
        augself=AugSelf(crop=0, color=0),
        optim=Optim(name="adamw", lr=5e-4, weight_decay=0.05, schedule="constant"),
        run=Path("runs/imagenette_barlow_vits"),
        epochs=200,
        batch_size=256,
    )


if __name__ == "__main__":
    run(imagenet_barlow_augself, sgd=sgd, imagenette_vits=imagenette_vits)
