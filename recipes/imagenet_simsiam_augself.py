"""SimSiam + AugSelf, ResNet-50, ImageNet-1k, 100 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_simsiam_augself.py --data.train train.beton --data.val val.beton

SimSiam's own setting (Chen and He 2020, arXiv 2011.10566; 68.1 % linear without AugSelf): batch size 512, constant
learning rate of the predictor. AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, SimSiam, ViewPolicy, run


def imagenet_simsiam_augself() -> Pretrain:
    """SimSiam + AugSelf, ResNet-50, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.moco_v2(224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=SimSiam(),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.05, momentum=0.9, weight_decay=1e-4),
        run=Path("runs/imagenet_simsiam_augself"),
        epochs=100,
        batch_size=512,
    )


if __name__ == "__main__":
    run(imagenet_simsiam_augself)
