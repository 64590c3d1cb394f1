"""Supervised + AugSelf, ResNet-50, ImageNet-1k, 90 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_supervised_augself.py --data.train train.beton --data.val val.beton

Cross entropy on two augmented views and AugSelf on their features: the supervised variant of Lee 2021 (arXiv
2111.09613), whose code was not released; schedule and weights are ours.
This recipe has not been run yet.
"""

from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, Supervised, ViewPolicy, run


def imagenet_supervised_augself() -> Pretrain:
    """Supervised + AugSelf, ResNet-50, ImageNet-1k, 90 epochs."""
    return Pretrain(
        view=ViewPolicy.moco_v2(224),
        backbone=Backbone(name="resnet50"),
        method=Supervised(),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.1, momentum=0.9, weight_decay=1e-4, warmup_epochs=5),
        run=Path("runs/imagenet_supervised_augself"),
        epochs=90,
        batch_size=256,
    )


if __name__ == "__main__":
    run(imagenet_supervised_augself)
