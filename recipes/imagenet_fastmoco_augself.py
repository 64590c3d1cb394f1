"""Fast-MoCo + AugSelf, ResNet-50, ImageNet-1k, 100 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_fastmoco_augself.py --data.train train.beton --data.val val.beton

Fast-MoCo's own setting (Ci 2022, arXiv 2207.08220; 73.5 % linear without AugSelf after 100 epochs in its repository's
README, MoCo v3 68.9 % there): each view is cut in 2 x 2 parts, and the mean features of every pair of parts predict the
key of the other whole view. MoCo v2's views, SGD with a batch size of 512, temperature 1.0, a constant EMA momentum of
0.99, gradients clipped at norm 1 (fastmoco_e100/config.yaml; the projector and predictor of fastmoco_builder.py).
Different from their code: the momentum encoder is updated after the step instead of before the keys are made, and the
warm-up starts at 0 (theirs: a quarter of the peak). `--preset long` has 400 epochs (75.5 %). `--method.split 1` turns
it off. AugSelf predicts from the mean of the parts; its weights are those of ImageNet-100 (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, MoCoV3, Optim, Pretrain, ViewPolicy, run


def imagenet_fastmoco_augself() -> Pretrain:
    """Fast-MoCo + AugSelf, ResNet-50, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.moco_v2(224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=MoCoV3(
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
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.05, momentum=0.9, weight_decay=1e-4, clip_grad=1.0, warmup_epochs=1),
        run=Path("runs/imagenet_fastmoco_augself"),
        epochs=100,
        batch_size=512,
    )


def long() -> Pretrain:
    """400 epochs."""
    return replace(imagenet_fastmoco_augself(), run=Path("runs/imagenet_fastmoco_augself_long"), epochs=400)


if __name__ == "__main__":
    run(imagenet_fastmoco_augself, long=long)
