"""seq-JEPA, ResNet-18 at 32 px, CIFAR-100, 2000 epochs: predict the next view from a sequence of views and actions.

    python recipes/cifar100_seqjepa.py --data.train cifar100/train --data.val cifar100/test

seq-JEPA's setting on CIFAR-100 (Ghaemi et al. 2025, arXiv 2505.03176, and its repository): three context views and a
target, AdamW with a learning rate of 4e-4, weight decay 1e-3, batch size 256, EMA 0.996; crop, colour and blur are the
actions. There is no base loss; `--seqjepa.no-only` adds SimCLR's. The folders are CIFAR-100's photos with one subfolder
per class. `--preset augself` adds AugSelf's losses on the first two views, which nobody has published. The warm-up of
20 epochs and MoCo v2's views are this project's choice; no accuracy on CIFAR-100 is cited here.
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, Optim, Pretrain, SeqJEPA, SimCLR, ViewPolicy, run


def cifar100_seqjepa() -> Pretrain:
    """seq-JEPA, ResNet-18 at 32 px, CIFAR-100, 2000 epochs."""
    return Pretrain(
        view=ViewPolicy.moco_v2(32),
        backbone=Backbone(name="resnet18", stem="small", batch_norm="sync"),
        method=SimCLR(),
        augself=AugSelf(crop=0, color=0),
        aware=(SeqJEPA(only=True),),
        optim=Optim(name="adamw", lr=4e-4, weight_decay=1e-3, warmup_epochs=20),
        run=Path("runs/cifar100_seqjepa"),
        epochs=2000,
        batch_size=256,
    )


def augself() -> Pretrain:
    """seq-JEPA with AugSelf's losses on the first two views."""
    base = cifar100_seqjepa()
    return replace(base, augself=AugSelf(crop=0.5, color=0.5, only=True), run=Path("runs/cifar100_seqjepa_augself"))


if __name__ == "__main__":
    run(cifar100_seqjepa, augself=augself)
