"""Options that cannot work together are refused before any data is opened, with the options named."""

import dataclasses

import pytest

from fastaugself import (
    BYOL,
    CASSLE,
    DINO,
    NNCLR,
    Augment,
    AugSelf,
    Backbone,
    BarlowTwins,
    LeJEPA,
    MoCo,
    MoCoV3,
    Pretrain,
    SimCLR,
    SimSiam,
    Supervised,
    SwAV,
    VICReg,
    ViewPolicy,
)
from fastaugself.aware.cassle import PUBLISHED
from fastaugself.cli.pretrain import main
from fastaugself.errors import UsageError

CONCAT = ("--cassle.conditioning", "concat")
OFF = ("--augself.crop", "0", "--augself.color", "0")

# The recipe's method, a command line, and what the message must name: the conflicting options and what to pass instead.
REFUSED = [
    (MoCo(), ["--augself.rotation", "1"], ["--augself.rotation 1", "--view.rotation 0.5"]),
    (MoCo(), ["--augself.solarize", "1"], ["--augself.solarize 1", "--view.solarize 0.5"]),
    (MoCo(), ["--augself.blur", "1", "--view.blur", "0"], ["--augself.blur 1", "--view.blur 0.5"]),
    (MoCo(), ["--augself.flip", "1", "--view.flip", "0"], ["--augself.flip 1", "--view.flip 0.5"]),
    (MoCo(), ["--augself.flip", "1", "--view.flip", "1"], ["--augself.flip 1", "--view.flip 0.5"]),
    (MoCo(), ["--view.scale", "1", "1"], ["--augself.crop 0.5", "--view.scale 0.2 1.0", "--augself.crop 0"]),
    (MoCo(), ["--view.jitter", "0"], ["--augself.color 0.5", "--view.jitter 0.8", "--augself.color 0"]),
    (MoCo(), ["--augself.crop", "-1"], ["--augself.crop must be at least 0, got -1"]),
    (MoCo(), [*CONCAT, "--cassle.include", "crop", "elephant"], ["--cassle.include", "elephant", "color_diff"]),
    (MoCo(), [*CONCAT, "--view.blur", "0"], ["--cassle.include blur", "--cassle.include color color_diff crop gray"]),
    (MoCo(), [*CONCAT, *OFF, "--view.jitter", "0"], ["--cassle.include color color_diff:", "crop grayscale"]),
    (MoCo(), [*CONCAT, "--cassle.include", "blur", "--view.blur", "0"], ["--cassle.conditioning none"]),
    (
        MoCo(),
        ["--cassle.conditioning", "add", "--cassle.condition-encoder", "raw"],
        ["--cassle.conditioning add", "--cassle.condition-encoder mlp"],
    ),
    (Supervised(), [*CONCAT], ["--cassle.conditioning concat", "no projector", "--cassle.conditioning none"]),
    (Supervised(), ["--num-local-crops", "6"], ["--num-local-crops 6", "Supervised", "--num-local-crops 0"]),
    (SwAV(), ["--num-local-crops", "-1"], ["--num-local-crops must be at least 0, got -1"]),
    (
        SwAV(),
        ["--num-local-crops", "2", "--local-crop.size", "8", "--augment.blur-kernel", "23"],
        ["--augment.blur-kernel", "--local-crop.size 8", "got 23", "--augment.blur-kernel 3"],
    ),
    (MoCo(), ["--augment.blur-kernel", "10"], ["--augment.blur-kernel", "odd", "got 10"]),
    (MoCo(), ["--augment.blur-kernel", "-1"], ["--augment.blur-kernel", "got -1"]),
    (MoCo(queue=1000), [], ["--method.queue 1000", "--batch-size 256", "--method.queue 768"]),
    (MoCo(), ["--batch-size", "100"], ["--method.queue 65536", "--batch-size 100", "--method.queue 65500"]),
    (SwAV(queue=3840), ["--batch-size", "512"], ["--method.queue 3840", "--batch-size 512", "--method.queue 3584"]),
    (MoCo(), ["--augself-only", *OFF], ["--augself.only", "--augself.crop 0.5"]),
    (
        MoCo(),
        ["--augself-only", *CONCAT],
        ["--augself.only", "--cassle.conditioning concat", "--cassle.conditioning none"],
    ),
    (SwAV(), ["--augself-only", "--num-local-crops", "6"], ["--augself.only", "--num-local-crops 0"]),
    (MoCo(), ["--method.temperature", "0"], ["--method.temperature", "above 0"]),
    (MoCo(), ["--method.momentum", "1.5"], ["--method.momentum", "1.5"]),
    (MoCo(), ["--method.dim", "0"], ["--method.dim must be at least 1, got 0"]),
    (MoCoV3(), ["--method.momentum", "-1"], ["--method.momentum", "-1"]),
    (MoCoV3(), ["--method.projector-layers", "1"], ["--method.projector-layers"]),
    (SimSiam(), ["--method.layers", "1"], ["--method.layers"]),
    (SimCLR(), ["--method.temperature", "0"], ["--method.temperature"]),
    (BYOL(), ["--method.predictor-hidden", "0"], ["--method.predictor-hidden"]),
    (SwAV(), ["--method.epsilon", "0"], ["--method.epsilon"]),
    (SwAV(), ["--method.prototypes", "1"], ["--method.prototypes"]),
    (SwAV(), ["--method.queue-start", "2"], ["--method.queue-start"]),
    (SwAV(), ["--method.freeze-steps", "-1"], ["--method.freeze-steps"]),
    (BarlowTwins(), ["--method.redundancy", "-1"], ["--method.redundancy"]),
    *[(VICReg(), [f"--method.{name}", "-1"], [f"--method.{name}"]) for name in ("invariance", "variance", "dim")],
    (NNCLR(queue=1000), [], ["--method.queue 1000", "--batch-size 256", "--method.queue 768"]),
    (NNCLR(), ["--method.temperature", "0"], ["--method.temperature", "above 0"]),
    *[(LeJEPA(), ["--method.weight", value], ["--method.weight", "collapse"]) for value in ("0", "1")],
    (LeJEPA(), ["--method.limit", "0"], ["--method.limit"]),
    (DINO(), ["--method.teacher-temperature", "0"], ["--method.teacher-temperature", "above 0", "0.04"]),
    (DINO(), ["--method.prototypes", "100000000"], ["--method.prototypes", "from 2 to 1048576", "65536"]),
    (Supervised(), ["--method.label-smoothing", "2"], ["--method.label-smoothing"]),
    (MoCo(), ["--backbone.name", "timm:vit_small_patch16_224", "--backbone.width", "32"], ["--backbone.width"]),
    (MoCo(), ["--backbone.freeze-patch-embed"], ["--backbone.freeze-patch-embed", "resnet50"]),
]


@pytest.mark.parametrize(("method", "options", "named"), REFUSED, ids=lambda value: " ".join(map(str, value))[:60]
                         if isinstance(value, list) else type(value).__name__)  # fmt: skip
def test_refused_with_the_options_named(method, options, named, tmp_path, capsys):
    missing = tmp_path / "missing.beton"  # a message about this file would mean that data was opened first

    def recipe():
        return dataclasses.replace(Pretrain(run=tmp_path / "run"), method=method)

    code = main(recipe, {}, ["--data.train", str(missing), *options])
    said = capsys.readouterr().err
    assert code == 2 and said.startswith("error: --") and "missing.beton" not in said
    assert all(name in said for name in named), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"augself": AugSelf(rotation=1.0), "view": ViewPolicy(rotation=0.5)},
        {"augself": AugSelf(solarize=1.0), "view2": ViewPolicy(solarize=0.2)},  # BYOL: only the second view
        {"augself": AugSelf(crop=0, color=0), "view": ViewPolicy.none()},
        {"augself": AugSelf(crop=0), "view": ViewPolicy.appearance()},
        {"augself": AugSelf(color=0), "view": ViewPolicy.spatial()},
        {
            "cassle": CASSLE("concat", include=("crop", "flip")),
            "view": ViewPolicy.spatial(),
            "augself": AugSelf(color=0),
        },
        {"cassle": CASSLE("concat", include=(*PUBLISHED, "flip"))},
        {"method": SwAV(queue=3840), "num_local_crops": 6},
        {"method": LeJEPA(), "num_local_crops": 6},
        *(
            {"method": method, "num_local_crops": 6}
            for method in (SimSiam(), SimCLR(), BYOL(), MoCo(), MoCoV3(), NNCLR())
        ),
        {"method": BarlowTwins(), "num_local_crops": 2},
        {"method": DINO(), "num_local_crops": 8},
        {"method": VICReg(), "num_local_crops": 6},
        {"method": Supervised()},
        {"augself": AugSelf(only=True), "method": SwAV()},
        {"augment": Augment(blur_kernel=9), "view": ViewPolicy(size=96), "backbone": Backbone("resnet18")},
    ],
    ids=lambda options: " ".join(options),
)
def test_combinations_that_work_are_accepted(options):
    Pretrain(**options)


def test_queue_and_condition_of_the_messages_are_accepted():
    """The values in the messages above; test_remedies.py takes those of all messages."""
    Pretrain(method=MoCo(queue=65_500), batch_size=100)
    Pretrain(method=SwAV(queue=3584), batch_size=512)
    left = CASSLE("concat", include=("color", "color_diff", "crop", "grayscale"))
    Pretrain(cassle=left, view=ViewPolicy(blur=0))
    with pytest.raises(UsageError, match="multiple"):
        Pretrain(method=SwAV(queue=3584), batch_size=500)
