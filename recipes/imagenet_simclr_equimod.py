"""SimCLR + EquiMod, ResNet-50, ImageNet-1k, 800 epochs: predict a view from the plain photo and its parameters.

    torchrun --nproc-per-node=8 recipes/imagenet_simclr_equimod.py --data.train train.beton --data.val val.beton

EquiMod's own setting (Devillers and Lefort 2023, arXiv 2211.01244, and its repository): LARS with a batch size of 4096
and a learning rate of 2.4, weight decay 1e-6, ten epochs of warm-up, temperature 0.2 in both losses, embeddings of 128
dimensions. Its README reports 71.57 % linear for its SimCLR and 72.30 % with EquiMod. `--preset byol` is its BYOL, 1000
epochs with a learning rate of 4.8: 74.03 %, and 73.22 % with EquiMod, which hurts there. The views are SimCLR's and
BYOL's; the parameters are those of the views here, with the crop in fractions of the photo. To train without EquiMod,
pass `--equimod.weight 0`.
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import BYOL, AugSelf, Backbone, EquiMod, Optim, Pretrain, SimCLR, ViewPolicy, run


def imagenet_simclr_equimod() -> Pretrain:
    """SimCLR + EquiMod, ResNet-50, ImageNet-1k, 800 epochs."""
    return Pretrain(
        view=ViewPolicy.simclr(224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=SimCLR(temperature=0.2),
        augself=AugSelf(crop=0, color=0),
        aware=(EquiMod(),),
        optim=Optim(name="lars", lr=0.15, momentum=0.9, weight_decay=1e-6, decay_norm_bias=False, warmup_epochs=10),
        run=Path("runs/imagenet_simclr_equimod"),
        epochs=800,
        batch_size=4096,
    )


def byol() -> Pretrain:
    """BYOL + EquiMod, 1000 epochs."""
    base = imagenet_simclr_equimod()
    return replace(
        base,
        view=ViewPolicy.byol(0, 224),
        view2=ViewPolicy.byol(1, 224),
        method=BYOL(momentum=0.996),
        aware=(EquiMod(include=("blur", "color", "crop", "flip", "grayscale", "jitter", "order", "solarize")),),
        optim=replace(base.optim, lr=0.3, weight_decay=1.5e-6),
        run=Path("runs/imagenet_byol_equimod"),
        epochs=1000,
    )


if __name__ == "__main__":
    run(imagenet_simclr_equimod, byol=byol)
