"""SimCLR + AugSelf, ResNet-50, ImageNet-1k, 100 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_simclr_augself.py --data.train train.beton --data.val val.beton

SimCLR's views and loss (Chen 2020, arXiv 2002.05709) at a batch of 1024, with SGD instead of LARS. AugSelf's
ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
No run of this recipe has been made yet.
"""

from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, SimClr, ViewPolicy, run


def imagenet_simclr_augself() -> Pretrain:
    """SimCLR + AugSelf, ResNet-50, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.simclr(224),
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=SimClr(temperature=0.1),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.075, momentum=0.9, weight_decay=1e-4, warmup_epochs=10),
        run=Path("runs/imagenet_simclr_augself"),
        epochs=100,
        batch_size=1024,
    )


if __name__ == "__main__":
    run(imagenet_simclr_augself)
