"""SimCLR + AugSelf, ResNet-50, ImageNet-1k, 100 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_simclr_augself.py --data.train train.beton --data.val val.beton

SimCLR's own setting for 100 epochs (Chen 2020, arXiv 2002.05709; about 64.5 % linear without AugSelf in its
repository's README): LARS with a batch size of 4096, negatives from all processes. `--preset sgd` is smaller: SGD with
a batch size of 1024. AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, SimCLR, ViewPolicy, run


def imagenet_simclr_augself() -> Pretrain:
    """SimCLR + AugSelf, ResNet-50, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.simclr(224),
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=SimCLR(temperature=0.1),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(name="lars", lr=0.3, momentum=0.9, weight_decay=1e-6, decay_norm_bias=False, warmup_epochs=10),
        run=Path("runs/imagenet_simclr_augself"),
        epochs=100,
        batch_size=4096,
    )


def sgd() -> Pretrain:
    """SGD with a batch size of 1024."""
    return replace(
        imagenet_simclr_augself(),
        optim=Optim(lr=0.075, momentum=0.9, weight_decay=1e-4, warmup_epochs=10),
        run=Path("runs/imagenet_simclr_augself_sgd"),
        batch_size=1024,
    )


if __name__ == "__main__":
    run(imagenet_simclr_augself, sgd=sgd)
