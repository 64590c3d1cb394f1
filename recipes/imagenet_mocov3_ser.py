"""MoCo v3 + SER, ViT-S/16, ImageNet-1k, 100 epochs: patch features of an early block follow rotations and flips.

    torchrun --nproc-per-node=8 recipes/imagenet_mocov3_ser.py --data.train train.beton --data.val val.beton

The setting of SER's paper (Lee et al. 2026, arXiv 2603.06693): AdamW, a learning rate of 3e-4 per 256 images, weight
decay 0.1, batch size 2048, temperature 0.2; SER's loss with weight 1 and temperature 0.5 at block 3 on 1 % of the
photos. The paper reports 68.44 % linear for MoCo v3, 68.82 % with its placement of the class token alone, and 69.28 %
with SER. That its learning rate of 3e-4 is per 256 images, as in MoCo v3's code, is an assumption. Other differences
are in `fastaugself/aware/ser.py` and `imagenet_mocov3_augself.py` (needs timm). `--preset equimod` is EquiMod on the
same base (68.95 % there, with an embedding head of 384). To train without SER, pass `--ser.weight 0`.
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import SER, AugSelf, Backbone, EquiMod, MoCoV3, Optim, Pretrain, ViewPolicy, run


def imagenet_mocov3_ser() -> Pretrain:
    """MoCo v3 + SER, ViT-S/16, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        backbone=Backbone(name="timm:vit_small_patch16_224", batch_norm="sync", freeze_patch_embed=True),
        method=MoCoV3(projector_layers=3, predictor_norm=True),
        augself=AugSelf(crop=0, color=0),
        aware=(SER(),),
        optim=Optim(name="adamw", lr=3e-4, weight_decay=0.1, warmup_epochs=40),
        run=Path("runs/imagenet_mocov3_ser"),
        epochs=100,
        batch_size=2048,
    )


def equimod() -> Pretrain:
    """MoCo v3 + EquiMod on the same base."""
    return replace(imagenet_mocov3_ser(), aware=(EquiMod(hidden=384),), run=Path("runs/imagenet_mocov3_equimod"))


if __name__ == "__main__":
    run(imagenet_mocov3_ser, equimod=equimod)
