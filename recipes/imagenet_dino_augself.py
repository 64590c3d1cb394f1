"""DINO + AugSelf, ResNet-50 or ViT-S/16, ImageNet-1k, 100 epochs, multi-crop.

    torchrun --nproc-per-node=8 recipes/imagenet_dino_augself.py --data.train train.beton --data.val val.beton

DINO's own settings (Caron 2021, arXiv 2104.14294; commands of its repository's README, defaults of main_dino.py) on 8
GPUs with 64 images each: BYOL's colours, two views of 224 px and eight of 96 px. ResNet-50 is trained with SGD (lightly
measured 68.2 % linear after 100 epochs with a batch size of 128 and six local crops, without AugSelf). `--preset vit`
is a ViT-S/16 with AdamW (about 73.8 % linear in the README; needs timm), `--preset vit-long` its boosted setting on 16
GPUs: 300 epochs, a teacher temperature that rises to 0.07 in 30 epochs, and prototypes of any length (about 76.1 %).
Different from their code: crops are resized bilinearly (theirs: bicubic), batch statistics are those of each crop
(theirs: of all crops of a size), and the teacher's temperature rises at every step (theirs: at every epoch). AugSelf's
ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import DINO, AugSelf, Backbone, Optim, Pretrain, ViewPolicy, run

IMAGES = 1_281_167  # the prototypes are frozen in the first epoch
MIN_LR = 1e-6  # at any batch size


def imagenet_dino_augself() -> Pretrain:
    """DINO + AugSelf, ResNet-50, ImageNet-1k, 100 epochs, 2 x 224 + 8 x 96."""
    return Pretrain(
        view=replace(ViewPolicy.byol(0, 224), scale=(0.14, 1.0)),
        view2=replace(ViewPolicy.byol(1, 224), scale=(0.14, 1.0)),
        local_crop=replace(ViewPolicy.byol(0, 96), scale=(0.05, 0.14), blur=0.5),
        num_local_crops=8,
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=DINO(freeze_steps=IMAGES // 512),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(
            lr=0.03,
            min_lr=MIN_LR * 256 / 512,
            momentum=0.9,
            weight_decay=1e-4,
            decay_norm_bias=False,
            clip_grad=3.0,
            clip_by="parameter",
            warmup_epochs=10,
        ),
        run=Path("runs/imagenet_dino_augself"),
        epochs=100,
        batch_size=512,
    )


def vit() -> Pretrain:
    """ViT-S/16 with AdamW."""
    base = imagenet_dino_augself()
    return replace(
        base,
        view=replace(base.view, scale=(0.4, 1.0)),
        view2=replace(ViewPolicy.byol(1, 224), scale=(0.4, 1.0)),
        local_crop=replace(base.local_crop, scale=(0.05, 0.4)),
        backbone=Backbone(name="timm:vit_small_patch16_224", batch_norm="sync", drop_path=0.1),
        optim=replace(base.optim, name="adamw", lr=5e-4, weight_decay=0.04, weight_decay_end=0.4),
        run=Path("runs/imagenet_dino_vit_augself"),
    )


def vit_long() -> Pretrain:
    """ViT-S/16 for 300 epochs with a warmer teacher."""
    base = vit()
    return replace(
        base,
        method=DINO(freeze_steps=IMAGES // 1024, teacher_temperature=0.07, teacher_warmup=30 / 300, fixed_length=False),
        optim=replace(base.optim, min_lr=MIN_LR * 256 / 1024),
        run=Path("runs/imagenet_dino_vit_augself_long"),
        epochs=300,
        batch_size=1024,
    )


if __name__ == "__main__":
    run(imagenet_dino_augself, vit=vit, **{"vit-long": vit_long})
