"""Any method on about ten thousand small photos: baseline, AugSelf, CASSLE, or both; ResNet-18 at 64 px.

    python recipes/study.py --preset simsiam-augself --data.train photos/train --data.val photos/val

The presets differ in the method and its variant only: `--preset METHOD`, `METHOD-augself`, `METHOD-cassle` or
`METHOD-augself-cassle`, for moco, mocov3, simsiam, simclr, byol, swav, barlow, supervised (which has no projector for
CASSLE). All variants of a method use its baseline's learning rate. For larger views, pass `--view.size 96
--augment.blur-kernel 9`. Heads, weights and weight decay are those of AugSelf's STL10 setting (Lee 2021, arXiv
2111.09613); queue, momentum and frozen prototypes are this project's choice for about forty steps per epoch. No result
is published for it. The longest run is that of `studies/augself/study.py` with moco at 32 px, six epochs and three
seeds of each variant (results/intel-xeon-2-cores/study.json, discussed in docs/evaluation.md). In 300 steps at 48 px
with AugSelf, no method collapses (results/intel-xeon-2-cores/collapse.json, from `scripts/collapse_check.py`): the
effective rank rose from 36 to between 84 and 118 of 256, except with Barlow Twins, where it stayed at 36 in the only
one of four settings in which it did not fall.
"""

from functools import partial
from pathlib import Path

from fastaugself import (
    BYOL,
    CASSLE,
    AugSelf,
    Backbone,
    BarlowTwins,
    MoCo,
    MoCoV3,
    Optim,
    Pretrain,
    SimCLR,
    SimSiam,
    Supervised,
    SwAV,
    ViewPolicy,
    run,
)
from fastaugself.methods import AnyMethod

SGD = Optim(lr=0.06, momentum=0.9, weight_decay=5e-4, warmup_epochs=5)
METHODS: dict[str, tuple[AnyMethod, Optim]] = {
    "moco": (MoCo(queue=4096, momentum=0.99, projector_norm=True), SGD),
    "mocov3": (MoCoV3(hidden=2048, momentum=0.99), SGD),
    "simsiam": (SimSiam(layers=2, affine=True), SGD),
    "simclr": (SimCLR(), SGD),
    "byol": (BYOL(momentum=0.99), SGD),
    "swav": (SwAV(prototypes=100, freeze_steps=40), SGD),
    # Its loss sums over 1,024 dimensions: in 300 steps at 0.4 the features lost rank, at 0.005 they did not.
    "barlow": (BarlowTwins(dim=1024), Optim(lr=0.005, weight_decay=1e-4, norm_bias_lr_scale=0.024, warmup_epochs=10)),
    "supervised": (Supervised(), SGD),
}
PARTS = {
    "": (AugSelf(crop=0, color=0), CASSLE()),
    "-augself": (AugSelf(crop=1.0, color=1.0), CASSLE()),
    "-cassle": (AugSelf(crop=0, color=0), CASSLE(conditioning="concat")),
    "-augself-cassle": (AugSelf(crop=1.0, color=1.0), CASSLE(conditioning="concat")),
}


def study(method: str = "moco", parts: str = "-augself") -> Pretrain:
    """A method on small photos, ResNet-18 at 64 px, 200 epochs."""
    options, optim = METHODS[method]
    augself, cassle = PARTS[parts]
    return Pretrain(
        view=ViewPolicy.moco_v2(64),
        backbone=Backbone(name="resnet18", batch_norm="sync", zero_init_residual=True),
        method=options,
        augself=augself,
        cassle=cassle,
        optim=optim,
        run=Path("runs/study") if (method, parts) == ("moco", "-augself") else Path(f"runs/study_{method}{parts}"),
        epochs=200,
        batch_size=256,
    )


PRESETS = {
    method + parts: partial(study, method, parts)
    for method, (options, _) in METHODS.items()
    for parts, (_, cassle) in PARTS.items()
    if options.has_projector or not cassle.condition_dim
}

if __name__ == "__main__":
    run(study, **PRESETS)
