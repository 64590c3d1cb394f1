"""SimCLR + E-SSL, ResNet-50, ImageNet-1k, 100 epochs: predict the rotation of a small view.

    torchrun --nproc-per-node=8 recipes/imagenet_simclr_essl.py --data.train train.beton --data.val val.beton

E-SSL's own setting (Dangovski et al. 2022, arXiv 2111.00899, and its repository): LARS with a batch size of 4096 and a
learning rate of 4.8, temperature 0.2, rotation loss with weight 0.4 on views of 96 px. Its README reports 67.6 % linear
for SimCLR and 68.2 % with E-SSL after 100 epochs; 69.7 and 70.2 after 200, 70.4 and 71.3 after 300, 71.9 and 72.5 after
800 (`--epochs`). `--preset simsiam` is its SimSiam: SGD, batch size 512, weight 0.08; 67.9 and 68.5 % after 100 epochs.
The views of the base method are taken from SimCLR and SimSiam. To train without the rotation loss, pass `--essl.weight
0`.
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import ESSL, AugSelf, Backbone, Optim, Pretrain, SimCLR, SimSiam, ViewPolicy, run


def imagenet_simclr_essl() -> Pretrain:
    """SimCLR + E-SSL, ResNet-50, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.simclr(224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=SimCLR(temperature=0.2),
        augself=AugSelf(crop=0, color=0),
        aware=(ESSL(weight=0.4),),
        optim=Optim(name="lars", lr=0.3, momentum=0.9, weight_decay=1e-6, decay_norm_bias=False, warmup_epochs=10),
        run=Path("runs/imagenet_simclr_essl"),
        epochs=100,
        batch_size=4096,
    )


def simsiam() -> Pretrain:
    """SimSiam + E-SSL, SGD with a batch size of 512."""
    return replace(
        imagenet_simclr_essl(),
        view=ViewPolicy.moco_v2(224),
        method=SimSiam(),
        aware=(ESSL(weight=0.08, dim=256),),
        optim=Optim(lr=0.05, momentum=0.9, weight_decay=1e-4),
        run=Path("runs/imagenet_simsiam_essl"),
        batch_size=512,
    )


if __name__ == "__main__":
    run(imagenet_simclr_essl, simsiam=simsiam)
