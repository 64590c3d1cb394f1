"""Barlow Twins + AugSelf, ResNet-50, ImageNet-1k, 300 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_barlow_augself.py --data.train train.beton --data.val val.beton

Barlow Twins (Zbontar 2021, arXiv 2103.03230) with BYOL's views, trained with SGD as the CASSLE authors do (their
ImageNet-100 setting: learning rate 0.05, 1e-4 weight decay, 10 epochs of warm-up, a factor of 0.024 for norms and
biases). AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
No run of this recipe has been made yet.
"""

from pathlib import Path

from fastaugself import AugSelf, Backbone, BarlowTwins, Optim, Pretrain, ViewPolicy, run


def imagenet_barlow_augself() -> Pretrain:
    """Barlow Twins + AugSelf, ResNet-50, ImageNet-1k, 300 epochs."""
    return Pretrain(
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=BarlowTwins(),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.05, momentum=0.9, weight_decay=1e-4, warmup_epochs=10, vector_lr=0.024),
        run=Path("runs/imagenet_barlow_augself"),
        epochs=300,
        batch_size=256,
    )


if __name__ == "__main__":
    run(imagenet_barlow_augself)
