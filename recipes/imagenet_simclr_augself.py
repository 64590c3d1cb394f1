"""SimCLR + AugSelf, ResNet-50, ImageNet-1k, 100 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_simclr_augself.py --data.train train.beton --data.val val.beton

The setting of the command in the original repository's README (google-research/simclr at 383d414; Chen 2020, arXiv
2002.05709; about 64.5 % linear without AugSelf): LARS with a batch size of 4096 and a learning rate of 4.8 (0.075 times
the root of 4096), a projector of three layers that ends with batch norm (run.py), residual branches that start at zero
(resnet.py). Its loss is the sum over both views (objective.py), ours the mean: with LARS that is a weight decay of half
their 1e-4, and twice the learning rate of norms and biases, which LARS does not scale. Different: their last batch norm
has no bias. `--preset paper-head` has the head of the paper
(two layers, weight decay 1e-6). `--preset sgd` is smaller: SGD with a batch size of 1024. AugSelf's ImageNet-100
weights (Lee 2021, arXiv 2111.09613).
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, SimCLR, ViewPolicy, run


def imagenet_simclr_augself() -> Pretrain:
    """SimCLR + AugSelf, ResNet-50, ImageNet-1k, 100 epochs."""
    return Pretrain(
        view=ViewPolicy.simclr(224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True),
        method=SimCLR(temperature=0.1, layers=3, last_norm=True),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(
            name="lars",
            lr=0.3,
            momentum=0.9,
            weight_decay=0.5e-4,
            decay_norm_bias=False,
            norm_bias_lr_scale=2.0,
            lr_in_velocity=True,
            warmup_epochs=10,
        ),
        run=Path("runs/imagenet_simclr_augself"),
        epochs=100,
        batch_size=4096,
    )


def paper_head() -> Pretrain:
    """The projector and the weight decay of the paper."""
    base = imagenet_simclr_augself()
    return replace(
        base,
        method=SimCLR(temperature=0.1),
        optim=replace(base.optim, weight_decay=0.5e-6),
        run=Path("runs/imagenet_simclr_augself_paper_head"),
    )


def sgd() -> Pretrain:
    """SGD with a batch size of 1024."""
    return replace(
        imagenet_simclr_augself(),
        optim=Optim(lr=0.075, momentum=0.9, weight_decay=1e-4, warmup_epochs=10),
        run=Path("runs/imagenet_simclr_augself_sgd"),
        batch_size=1024,
    )


if __name__ == "__main__":
    run(imagenet_simclr_augself, sgd=sgd, **{"paper-head": paper_head})
