"""Models with different invariances, to be compared and fused: MoCo v2, ResNet-50, ImageNet-1k, 200 epochs.

    torchrun --nproc-per-node=8 recipes/imagenet_moco_invariances.py --data.train train.beton --preset ventral

The models of Ericsson 2021 (arXiv 2111.11398), all MoCo v2 without AugSelf:
- default: all of MoCo v2's augmentation (no preset);
- `--preset ventral`: crop and flip only, invariant to position and size;
- `--preset dorsal`: colour jitter, gray and blur on a fixed central crop, invariant to appearance;
- `--preset wide`: the default's views with three times the width (6144 features, 384 in the embedding), a control for
  the capacity of three fused models.
Their tables are not in their code. The paper finds that each model learns the invariances it is trained for, that these
transfer to real changes of pose and lighting, and that the concatenation of all three is good on all tasks. Their blur
acts on the whole photo before the resize; here it acts on the view.
This recipe has not been run yet.
"""

from dataclasses import replace
from pathlib import Path

from fastaugself import AugSelf, Backbone, MoCo, Optim, Pretrain, ViewPolicy, run


def imagenet_moco_invariances() -> Pretrain:
    """MoCo v2 with all augmentations, ResNet-50, ImageNet-1k, 200 epochs."""
    return Pretrain(
        view=ViewPolicy.moco_v2(224),
        backbone=Backbone(name="resnet50", batch_norm="sync"),
        method=MoCo(queue=65_536, momentum=0.999, temperature=0.2),
        augself=AugSelf(crop=0, color=0),
        optim=Optim(lr=0.03, momentum=0.9, weight_decay=1e-4, schedule="cosine", schedule_by="epoch"),
        run=Path("runs/imagenet_moco_invariances"),
        epochs=200,
        batch_size=256,
    )


def ventral() -> Pretrain:
    """MoCo v2 with crop and flip only."""
    return replace(imagenet_moco_invariances(), view=ViewPolicy.spatial(224), run=Path("runs/imagenet_moco_ventral"))


def dorsal() -> Pretrain:
    """MoCo v2 with colour and blur only."""
    return replace(imagenet_moco_invariances(), view=ViewPolicy.appearance(224), run=Path("runs/imagenet_moco_dorsal"))


def wide() -> Pretrain:
    """The default with three times the width."""
    base = imagenet_moco_invariances()
    return replace(
        base,
        backbone=replace(base.backbone, width=192),
        method=MoCo(queue=65_536, dim=384, momentum=0.999, temperature=0.2),
        run=Path("runs/imagenet_moco_wide"),
    )


if __name__ == "__main__":
    run(imagenet_moco_invariances, ventral=ventral, dorsal=dorsal, wide=wide)
