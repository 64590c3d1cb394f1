"""MoCo v3 + AugSelf, ResNet-50 or ViT-S/16, ImageNet-1k, 300 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_mocov3_augself.py --data.train train.beton --data.val val.beton

MoCo v3's own setting (Chen 2021, arXiv 2104.02057; 72.8 % linear without AugSelf in its repository's CONFIG.md): LARS
with a batch size of 4096, temperature 1.0. `--preset vit` is its ViT-S/16 with AdamW, temperature 0.2 and a frozen
patch embedding (73.2 %; needs timm). timm's ViT-S/16 differs from theirs (vits.py): 6 heads instead of 12, a learned
position embedding instead of fixed sines and cosines, and other initial values: the frozen patch embedding has a
standard deviation of 0.021 and random biases (theirs: 0.042, zero), queries, keys and values 0.020 (theirs: 0.051).
`--preset sgd` is a smaller ResNet setting, with SGD and a batch size of 1024. AugSelf's ImageNet-100 weights (Lee 2021,
arXiv 2111.09613).

`--preset vit-block3` is AugSelf on the features of the third block, for 100 epochs at a batch size of 2048. There SER's
authors measured 68.23 % linear, 67.55 % with AugSelf on the last features and 68.44 % without (arXiv 2603.06693); the
learning rate is MoCo v3's.
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, MoCoV3, Optim, Pretrain, ViewPolicy, run


def imagenet_mocov3_augself() -> Pretrain:
    """MoCo v3 + AugSelf, ResNet-50, ImageNet-1k, 300 epochs."""
    return Pretrain(
        view=replace(ViewPolicy.byol(0, 224), scale=(0.2, 1.0)),
        view2=replace(ViewPolicy.byol(1, 224), scale=(0.2, 1.0)),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=MoCoV3(temperature=1.0, predictor_bias=False),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(name="lars", lr=0.3, momentum=0.9, weight_decay=1e-6, decay_norm_bias=False, warmup_epochs=10),
        run=Path("runs/imagenet_mocov3_augself"),
        epochs=300,
        batch_size=4096,
    )


def sgd() -> Pretrain:
    """ResNet-50 with SGD and a batch size of 1024."""
    return replace(
        imagenet_mocov3_augself(),
        optim=Optim(lr=0.1, momentum=0.9, weight_decay=1e-4, warmup_epochs=10),
        run=Path("runs/imagenet_mocov3_augself_sgd"),
        batch_size=1024,
    )


def vit() -> Pretrain:
    """ViT-S/16 with AdamW."""
    return replace(
        imagenet_mocov3_augself(),
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        backbone=Backbone(name="timm:vit_small_patch16_224", batch_norm="sync", freeze_patch_embed=True),
        method=MoCoV3(projector_layers=3, predictor_norm=True),
        optim=Optim(name="adamw", lr=1.5e-4, weight_decay=0.1, warmup_epochs=40),
        run=Path("runs/imagenet_mocov3_vit_augself"),
    )


def vit_block3() -> Pretrain:
    """ViT-S/16 for 100 epochs, with AugSelf's heads on the features of the third block."""
    return replace(
        vit(),
        augself=AugSelf(crop=0.5, color=0.5, layer="block3"),
        run=Path("runs/imagenet_mocov3_vit_augself_block3"),
        epochs=100,
        batch_size=2048,
    )


if __name__ == "__main__":
    run(imagenet_mocov3_augself, vit=vit, sgd=sgd, **{"vit-block3": vit_block3})
