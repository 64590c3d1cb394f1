"""VICReg + AugSelf, ResNet-50, ImageNet-1k, 1000 epochs.

    torchrun --nproc-per-node=32 recipes/imagenet_vicreg_augself.py --data.train train.beton --data.val val.beton

VICReg's own setting (Bardes 2021, arXiv 2105.04906; 73.2 % linear without AugSelf in its repository's README): BYOL's
views, LARS with a batch size of 2048; weights 25, 25 and 1 and the projector as in main_vicreg.py. `--preset short` is
its README's single node: 100 epochs with a batch size of 512 and 0.3. `--preset multicrop` adds six local crops with
SwAV's areas to that, which VICReg's authors did not do. Different from their code: the projector's last layer has a
bias, which cancels in the loss. AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, VICReg, ViewPolicy, run


def imagenet_vicreg_augself() -> Pretrain:
    """VICReg + AugSelf, ResNet-50, ImageNet-1k, 1000 epochs."""
    return Pretrain(
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=VICReg(dim=8192, invariance=25.0, variance=25.0, covariance=1.0),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(
            name="lars",
            lr=0.2,
            min_lr=0.2e-3,
            momentum=0.9,
            weight_decay=1e-6,
            decay_norm_bias=False,
            warmup_epochs=10,
        ),
        run=Path("runs/imagenet_vicreg_augself"),
        epochs=1000,
        batch_size=2048,
    )


def short() -> Pretrain:
    """100 epochs with a batch size of 512."""
    base = imagenet_vicreg_augself()
    return replace(
        base,
        optim=replace(base.optim, lr=0.3, min_lr=0.3e-3),
        run=Path("runs/imagenet_vicreg_augself_short"),
        epochs=100,
        batch_size=512,
    )


def multicrop() -> Pretrain:
    """The short setting with six local crops."""
    return replace(
        short(),
        local_crop=replace(ViewPolicy.byol(1, 96), scale=(0.05, 0.14), blur=0.5, solarize=0.0),
        num_local_crops=6,
        run=Path("runs/imagenet_vicreg_augself_multicrop"),
    )


if __name__ == "__main__":
    run(imagenet_vicreg_augself, short=short, multicrop=multicrop)
