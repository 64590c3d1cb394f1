"""ImageNet-100 in the settings of the AugSelf and CASSLE papers: ResNet-50, baseline, AugSelf, CASSLE and both.

    fastaugself write imagenet/train imagenet100.beton --classes imagenet100 --max-side 500
    torchrun --nproc-per-node=1 recipes/imagenet100_moco_augself.py --data.train imagenet100.beton

MoCo v2 + AugSelf, or `--preset METHOD`, `METHOD-augself`, `METHOD-cassle`, `METHOD-augself-cassle`, for moco, simsiam,
simclr, byol, swav, barlow, mocov3 (ViT-S/16; needs timm), fastmoco, vicreg, dino and lejepa. All variants of a method
use the same learning rate: runs by the CASSLE authors show that 0.05 instead of 0.03 changes MoCo as much as AugSelf
does, so try `--optim.lr 0.05` with the baseline too.

Published for MoCo v2 (Lee 2021, arXiv 2111.09613; linear evaluation, %): CIFAR-10 85.26, CIFAR-100 63.90, Food-101
60.78, MIT-67 63.36, Pets 73.46, Flowers 85.70, Caltech-101 78.93, Cars 37.35, Aircraft 39.47, DTD 66.22, SUN397 48.52;
without AugSelf 84.60, 61.60, 59.67, 61.64, 70.08, 82.43, 77.25, 33.86, 41.21, 64.47, 46.50. For SimSiam 88.80, 70.27,
65.63, 67.76, 76.34, 90.70, 85.30, 47.52, 49.76, 67.29, 52.28; without 86.89, 66.33, 61.48, 65.75, 74.69, 88.06, 84.13,
48.20, 48.63, 65.11, 50.60. Their queue holds queries: `--method.queue-source query` repeats that. CASSLE's command is
MoCo's at 0.03 with 13 columns of condition (arXiv 2306.06082); its final numbers are not in its code. The other methods
are as in CASSLE's code, where BYOL's projectors are as wide as the features. For ViT-S/16, CASSLE takes learning rate
and weight decay from the command line; those here are MoCo v3's. As in both papers' code, saturation is kornia 0.4.1's,
which scales S of HSV (`--augment.saturation blend` for torchvision's); each sample has its own order of the colour
jitter, where theirs has one per batch.

fastmoco, vicreg, dino and lejepa are in neither paper: they have the heads of their ImageNet recipes (dino with 4,096
prototypes and a momentum of 0.9995) and this setting's views, dino and lejepa also six local crops of 96 px. Learning
rates are those of the ImageNet recipes, vicreg's is lightly's for a batch of 256 (0.5).
This recipe has not been run yet.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from fastaugself import (
    BYOL,
    CASSLE,
    DINO,
    Augment,
    AugSelf,
    Backbone,
    BarlowTwins,
    LeJEPA,
    MoCo,
    MoCoV3,
    Optim,
    Pretrain,
    SimCLR,
    SimSiam,
    SwAV,
    VICReg,
    ViewPolicy,
    run,
)
from fastaugself.methods import AnyMethod

IMAGES = 126_689  # of ImageNet-100; DINO's prototypes are frozen in the first epoch
MULTI_CROP = ("dino", "lejepa")
RESNET = Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True, init="torch")
VIT = Backbone(name="timm:vit_small_patch16_224", batch_norm="sync", freeze_patch_embed=True)


def sgd(lr: float) -> Optim:
    """SGD, cosine schedule by epoch, without warm-up."""
    return Optim(lr=lr, momentum=0.9, weight_decay=1e-4, schedule="cosine", schedule_by="epoch")


METHODS: dict[str, tuple[AnyMethod, Optim, Backbone]] = {
    "moco": (MoCo(queue=65_536, momentum=0.999, temperature=0.2, projector_norm=True), sgd(0.03), RESNET),
    "simsiam": (SimSiam(affine=True), sgd(0.05), RESNET),
    "simclr": (SimCLR(gather=False), sgd(0.05), RESNET),
    "byol": (BYOL(hidden=2048, momentum=0.996), sgd(0.05), RESNET),
    "swav": (SwAV(prototypes=100, freeze_steps=409, gather=False, reduction="sum"), sgd(0.05), RESNET),
    "fastmoco": (
        MoCoV3(
            split=2,
            dim=2048,
            hidden=2048,
            projector_layers=3,
            projector_affine=True,
            predictor_hidden=512,
            temperature=1.0,
            scaled_loss=False,
            momentum=0.99,
            momentum_schedule=False,
        ),
        Optim(lr=0.05, momentum=0.9, weight_decay=1e-4, clip_grad=1.0, warmup_epochs=1),
        RESNET,
    ),
    "vicreg": (
        VICReg(),
        Optim(name="lars", lr=0.5, min_lr=0.005, weight_decay=1e-6, decay_norm_bias=False, warmup_epochs=10),
        RESNET,
    ),
    "dino": (
        DINO(prototypes=4096, momentum=0.9995, freeze_steps=IMAGES // 256),
        Optim(
            lr=0.03,
            min_lr=1e-6,
            weight_decay=1e-4,
            decay_norm_bias=False,
            clip_grad=3.0,
            clip_by="parameter",
            warmup_epochs=10,
        ),
        RESNET,
    ),
    "lejepa": (LeJEPA(), Optim(name="adamw", lr=5e-4, min_lr=5e-7, weight_decay=5e-4, warmup_epochs=1), RESNET),
    "barlow": (BarlowTwins(), Optim(lr=0.05, weight_decay=1e-4, warmup_epochs=10, norm_bias_lr_scale=0.024), RESNET),
    "mocov3": (
        MoCoV3(projector_layers=3, predictor_norm=True, momentum=0.999, momentum_schedule=False),
        Optim(name="adamw", lr=1.5e-4, weight_decay=0.1, warmup_epochs=40),
        VIT,
    ),
}
PARTS = {
    "": (AugSelf(crop=0, color=0), CASSLE()),
    "-augself": (AugSelf(crop=0.5, color=0.5), CASSLE()),
    "-cassle": (AugSelf(crop=0, color=0), CASSLE(conditioning="concat", depth=6, width=64)),
    "-augself-cassle": (AugSelf(crop=0.5, color=0.5), CASSLE(conditioning="concat", depth=6, width=64)),
}


def imagenet100_moco_augself(method: str = "moco", parts: str = "-augself") -> Pretrain:
    """A method on ImageNet-100, ResNet-50, 500 epochs, as in the AugSelf and CASSLE papers."""
    options, optim, backbone = METHODS[method]
    augself, cassle = PARTS[parts]
    name = f"imagenet100_{method}{parts}".replace("-", "_")
    view = ViewPolicy.moco_v2(224)
    return Pretrain(
        view=view,
        local_crop=replace(view, size=96, scale=(0.05, 0.2)),
        num_local_crops=6 if method in MULTI_CROP else 0,
        augment=Augment(saturation="hsv"),
        backbone=backbone,
        method=options,
        augself=augself,
        cassle=cassle,
        optim=optim,
        run=Path("runs") / name,
        epochs=300 if method in ("barlow", "mocov3") else 500,
        batch_size=256,
    )


PRESETS = {method + parts: partial(imagenet100_moco_augself, method, parts) for method in METHODS for parts in PARTS}

if __name__ == "__main__":
    run(imagenet100_moco_augself, **PRESETS)
