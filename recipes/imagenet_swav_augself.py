"""SwAV + AugSelf, ResNet-50, ImageNet-1k, 200 epochs, multi-crop.

    torchrun --nproc-per-node=8 recipes/imagenet_swav_augself.py --data.train train.beton --data.val val.beton

SwAV's setting for small batches (Caron 2020, arXiv 2006.09882; 72.7 % linear without AugSelf in its repository's
README): two views of 224 px and six of 96 px, 3000 prototypes, a queue of 3840 from epoch 15, SGD with layer-wise
rates for all parameters, norms and biases too (LARS here, LARC there: they divide by |g| + weight decay * |w|, we by
|g + weight decay * w|). Different from their code (main_swav.py): batch statistics are those of each view, theirs span
all crops of one size in the encoder and all crops in the projector; the queue is used once it is full. `--preset sgd`
uses plain SGD. AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, SwAV, ViewPolicy, run


def imagenet_swav_augself() -> Pretrain:
    """SwAV + AugSelf, ResNet-50, ImageNet-1k, 200 epochs, 2 x 224 + 6 x 96."""
    return Pretrain(
        view=replace(ViewPolicy.simclr(224), scale=(0.14, 1.0)),
        local_crop=replace(ViewPolicy.simclr(96), scale=(0.05, 0.14)),
        num_local_crops=6,
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=SwAV(prototypes=3000, queue=3840, queue_start=15 / 200, freeze_steps=5005),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(name="lars", lr=0.6, min_lr=0.6e-3, momentum=0.9, weight_decay=1e-6, adapt_norm_bias=True),
        run=Path("runs/imagenet_swav_augself"),
        epochs=200,
        batch_size=256,
    )


def sgd() -> Pretrain:
    """SwAV with plain SGD instead of LARS."""
    return replace(
        imagenet_swav_augself(),
        optim=Optim(lr=0.15, momentum=0.9, weight_decay=1e-6),
        run=Path("runs/imagenet_swav_augself_sgd"),
    )


if __name__ == "__main__":
    run(imagenet_swav_augself, sgd=sgd)
