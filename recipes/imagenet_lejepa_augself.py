"""LeJEPA + AugSelf, ResNet-50 or ViT-S/16, ImageNet-1k, 100 epochs, multi-crop.

    torchrun --nproc-per-node=8 recipes/imagenet_lejepa_augself.py --data.train train.beton --data.val val.beton

The views and the optimizer of the README of LeJEPA's repository (Balestriero and LeCun 2025, arXiv 2511.08544; 79 %
linear on a ViT-H/14 in the abstract; none is published for these models): two views of 224 px and six of 98 px with
equal colours, AdamW with weight decay 5e-4, 1,024 directions and 17 knots. `--preset vit` is a ViT-S/16 with weight
decay 0.05 (needs timm), with local crops of 96 px, a multiple of its patches. The README names neither batch size nor
lambda nor the width of the embedding: its learning rate of 5e-4 is taken at 256 here; lambda is that of the authors'
minimal example, 0.02 (lightly's has 0.05), the width of 64 is lightly's. There is no stochastic depth, which lightly's
benchmark has. AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, LeJEPA, Optim, Pretrain, ViewPolicy, run

VIEW = ViewPolicy(size=224, scale=(0.3, 1.0), saturation=0.2, solarize=0.2)


def imagenet_lejepa_augself() -> Pretrain:
    """LeJEPA + AugSelf, ResNet-50, ImageNet-1k, 100 epochs, 2 x 224 + 6 x 98."""
    return Pretrain(
        view=VIEW,
        local_crop=replace(VIEW, size=98, scale=(0.05, 0.3)),
        num_local_crops=6,
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=LeJEPA(dim=64, weight=0.02, directions=1024),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(name="adamw", lr=5e-4, min_lr=5e-7, weight_decay=5e-4, warmup_epochs=1),
        run=Path("runs/imagenet_lejepa_augself"),
        epochs=100,
        batch_size=256,
    )


def vit() -> Pretrain:
    """ViT-S/16, 2 x 224 + 6 x 96."""
    base = imagenet_lejepa_augself()
    return replace(
        base,
        local_crop=replace(base.local_crop, size=96),
        backbone=Backbone(name="timm:vit_small_patch16_224", batch_norm="sync"),
        optim=replace(base.optim, weight_decay=0.05),
        run=Path("runs/imagenet_lejepa_vit_augself"),
    )


if __name__ == "__main__":
    run(imagenet_lejepa_augself, vit=vit)
