"""MoCo v2 + AugSelf, ResNet-50, ImageNet-1k, 200 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_moco_augself.py --data.train train.beton --data.val val.beton

Plain `python` runs it on one device, and `--preset demo` on a laptop in minutes, on photos that come with
scikit-image and scikit-learn. MoCo v2's own setting (Chen 2020, arXiv 2003.04297; 67.5 % linear without AugSelf) with
AugSelf's ImageNet-100 weights (Lee 2021, arXiv 2111.09613): the AugSelf authors published no ImageNet-1k setting.
Batch norm is synchronised, which is the same on any number of processes; `--preset shuffle` has the published plain
batch norm with shuffled keys, for 8 processes with 32 images each, and 3 collectives in a step instead of 164.
The full recipe has not been run yet; `make pretrain` runs the demo.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, Checkpoint, Data, Log, MoCo, Optim, Pretrain, ViewPolicy, run


def imagenet_moco_augself() -> Pretrain:
    """MoCo v2 + AugSelf, ResNet-50, ImageNet-1k, 200 epochs."""
    return Pretrain(
        view=ViewPolicy.moco_v2(224),
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=MoCo(queue=65_536, momentum=0.999, temperature=0.2),
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=0.03, momentum=0.9, weight_decay=1e-4, schedule="cosine"),
        run=Path("runs/imagenet_moco_augself"),
        epochs=200,
        batch_size=256,
    )


def shuffle() -> Pretrain:
    """Batch norm per process and shuffled keys, as in the published code on 8 GPUs."""
    base = imagenet_moco_augself()
    return replace(
        base,
        backbone=replace(base.backbone, batch_norm="plain"),
        method=MoCo(queue=65_536, momentum=0.999, temperature=0.2, shuffle=True),
        run=Path("runs/imagenet_moco_augself_shuffle"),
    )


def demo() -> Pretrain:
    """MoCo v2 + AugSelf on eight real photos at 32 px with a small ResNet: minutes on two cores."""
    return Pretrain(
        data=Data(train=Path("demo"), val=Path("demo")),
        view=ViewPolicy.moco_v2(32),
        backbone=Backbone(name="resnet18", width=32),
        method=MoCo(queue=4096, momentum=0.99, temperature=0.2),
        augself=AugSelf(crop=1.0, color=1.0, hidden=256),
        optim=Optim(lr=0.06, weight_decay=1e-4, warmup_epochs=1),
        log=Log(every=8, knn_epochs=6),
        checkpoint=Checkpoint(minutes=0.25),
        run=Path("runs/demo"),
        epochs=24,
        batch_size=256,
    )


if __name__ == "__main__":
    run(imagenet_moco_augself, demo=demo, shuffle=shuffle)
