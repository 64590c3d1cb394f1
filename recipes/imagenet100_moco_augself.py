"""MoCo v2 + AugSelf, ResNet-50, ImageNet-100, 500 epochs: the setting of the AugSelf paper.

    torchrun --nproc-per-node=1 recipes/imagenet100_moco_augself.py --data.train imagenet100.beton

Published (Lee 2021, arXiv 2111.09613; linear evaluation, %): CIFAR-10 85.26, CIFAR-100 63.90, Food-101 60.78,
MIT-67 63.36, Pets 73.46, Flowers 85.70, Caltech-101 78.93, Cars 37.35, Aircraft 39.47, DTD 66.22, SUN397 48.52;
without AugSelf 84.60, 61.60, 59.67, 61.64, 70.08, 82.43, 77.25, 33.86, 41.21, 64.47, 46.50. Their queue holds queries:
`--method.queue-source query` repeats that. `--augself.crop 0 --augself.color 0` is the baseline.
No run of this recipe has been made yet.
"""

from pathlib import Path

from fastaugself import AugSelf, Backbone, MoCo, Optim, Pretrain, ViewPolicy, run


def imagenet100_moco_augself() -> Pretrain:
    """MoCo v2 + AugSelf, ResNet-50, ImageNet-100, 500 epochs, as in the AugSelf paper."""
    return Pretrain(
        view=ViewPolicy.moco_v2(224),
        backbone=Backbone(name="resnet50", batch_norm="sync", zero_init_residual=True, init="torch"),
        method=MoCo(queue=65_536, momentum=0.999, temperature=0.2, projector_norm=True),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.03, momentum=0.9, weight_decay=1e-4, schedule="cosine", schedule_by="epoch"),
        run=Path("runs/imagenet100_moco_augself"),
        epochs=500,
        batch_size=256,
    )


if __name__ == "__main__":
    run(imagenet100_moco_augself)
