"""The options that an error message advises work: each is read from the message and the command is run again."""

import dataclasses
import shlex
from pathlib import Path

import pytest
from remedies import remedies, take_remedies, with_remedy
from tiny_runs import config as tiny_config

from fastaugself import (
    BYOL,
    DINO,
    NNCLR,
    Backbone,
    BarlowTwins,
    Data,
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
from fastaugself.cli.pretrain import main, parse
from fastaugself.config.checks import check_photos, check_processes
from fastaugself.distributed import World
from fastaugself.errors import UsageError
from fastaugself.runs.build import build_learner
from fastaugself.training.setup import open_loader

SOLARIZED = "--augself.solarize 1 --view.solarize 0.5"
SPLIT = "--backbone.batch-norm split"
VIT = "--backbone.name timm:vit_tiny_patch16_224"

# Every refusal that options alone can reach: the recipe's method, and a command line.
REFUSED = [
    # config/schema.py
    *[
        (MoCo(), options)
        for options in (
            "--epochs 0",
            "--batch-size 1",
            "--accumulate 0",
            "--cuda-graphs --accumulate 2",
            "--max-steps 0",
            "--data.workers -1",
            "--data.max-corrupt 2",
            "--seed 9223372036854775808",
            "--augment.std 0.2 0 -1",
            "--log.every 0",
            "--log.knn-epochs -1",
            "--log.profile -1",
            "--checkpoint.minutes 0",
            "--checkpoint.keep 0",
            "--checkpoint.milestone -1",
        )
    ],
    # config/optim.py
    *[
        (MoCo(), options)
        for options in (
            "--optim.lr -1",
            "--optim.lr nan",
            "--optim.min-lr -1",
            "--optim.min-lr 0.5",
            "--optim.min-lr 0.001 --optim.schedule constant",
            "--optim.weight-decay-end -1",
            "--optim.clip-grad -1",
            "--optim.clip-grad 1 --optim.implementation apex",
            "--optim.lr-in-velocity",
            "--optim.momentum -1",
            "--optim.weight-decay -1",
            "--optim.warmup-epochs -1",
            "--optim.trust-coefficient -1",
            "--optim.norm-bias-lr-scale -1",
            "--optim.betas 0.9 1",
            "--optim.name lars --optim.implementation apex",
            "--optim.name lamb --optim.implementation apex",
            "--optim.name lamb --optim.implementation apex --optim.weight-decay 0",
        )
    ],
    # config/checks.py
    (MoCo(), "--data.source ffcv --data.decode nvimgcodec"),
    *[
        (method, "--accumulate 2")
        for method in (SimCLR(), BarlowTwins(), VICReg(), NNCLR(), LeJEPA(), SwAV(), MoCoV3())
    ],
    (MoCo(), f"--accumulate 2 {SOLARIZED}"),
    (MoCo(), "--accumulate 3"),
    (MoCo(), "--accumulate 200"),
    (MoCo(queue=4096), f"--accumulate 8 {SPLIT} --backbone.bn-group-size 24 --batch-size 100"),
    *[(MoCo(), f"{SPLIT} --backbone.bn-group-size {size}") for size in (7, 0, 512)],
    (SimSiam(), f"{SPLIT} --backbone.bn-group-size 7 --batch-size 254"),
    (SimSiam(), f"{SPLIT} --batch-size 251"),
    (MoCo(), f"{SPLIT} --batch-size 250"),
    (MoCo(), f"{SPLIT} {VIT}"),
    (MoCo(), "--batch-size 100"),
    (MoCo(), "--batch-size 100000"),
    (MoCo(), "--method.queue 1000"),
    (SwAV(queue=3840), "--batch-size 512"),
    (SwAV(queue=3840), "--batch-size 7680"),
    *[
        (MoCo(), f"--view.schedule {stages}")
        for stages in (
            "0.5:128 0.9:224",
            "0:128",
            "0:128 0.5:160",
            "0:128 0.9:160 0.5:224",
            "0:128 0.5:160 0.5:224",
            "0:128 1:224",
            "0:128 0.5",
            "0:0 0.5:224",
            "-1:128 0.5:224",
            "0:1 0.1:2 0.2:3 0.3:4 0.4:5 0.5:6 0.6:7 0.7:8 0.8:224",
        )
    ],
    (MoCo(), "--method.split 2 --view.schedule 0:99 0.5:224"),
    (MoCo(), "--view2.size 96"),
    (BYOL(), "--view.size 96 --view2.size 64"),
    (SwAV(), "--num-local-crops -1"),
    (Supervised(), "--num-local-crops 2"),
    (MoCo(), "--augment.blur-kernel 10"),
    (MoCo(), "--augment.blur-kernel -1"),
    (MoCo(), "--view.size 1 --augment.blur-kernel 3"),
    (SwAV(), "--num-local-crops 2 --local-crop.size 8 --augment.blur-kernel 23"),
    (MoCo(), "--view.scale 1 1"),
    (MoCo(), "--view.jitter 0"),
    (MoCo(), "--view.brightness 0 --view.contrast 0 --view.saturation 0 --view.hue 0"),
    (MoCo(), "--augself.flip 1 --view.flip 1"),
    (MoCo(), "--augself.blur 1 --view.blur 0"),
    (MoCo(), "--augself.rotation 1"),
    (MoCo(), "--augself.solarize 1"),
    (BYOL(), "--augself.rotation 1"),
    (Supervised(), "--cassle.conditioning concat"),
    (MoCo(), "--cassle.conditioning concat --view.blur 0"),
    (MoCo(), "--cassle.conditioning concat --view.jitter 0"),
    (MoCo(), "--cassle.conditioning concat --view.blur 0 --cassle.include blur"),
    (MoCo(), "--augself-only --augself.crop 0 --augself.color 0"),
    (MoCo(), "--augself-only --augself.crop 0 --augself.color 0 --view.scale 1 1"),
    (MoCo(), "--augself-only --cassle.conditioning concat"),
    (SwAV(), "--augself-only --num-local-crops 2"),
    # methods
    *[
        (MoCo(), f"--method.{option}")
        for option in ("momentum 2", "momentum-end 2", "temperature 0", "dim 0", "queue 0")
    ],
    *[
        (MoCoV3(), f"--method.{option}")
        for option in ("momentum -1", "momentum-end -1", "temperature 0", "hidden 0", "projector-layers 1")
    ],
    *[(method, f"--method.split {split}") for method in (MoCo(), MoCoV3()) for split in (0, 5, 3)],
    (MoCoV3(), f"--method.split 2 {VIT}"),
    (MoCoV3(), "--method.predictor-hidden 0"),
    (MoCo(), "--method.split 2 --method.queue-source query"),
    *[(SimSiam(), f"--method.{option}") for option in ("layers 1", "dim 0")],
    *[(SimCLR(), f"--method.{option}") for option in ("temperature -1", "dim 0", "layers 1")],
    *[(BYOL(), f"--method.{option}") for option in ("momentum 2", "predictor-hidden 0")],
    *[
        (SwAV(), f"--method.{option}")
        for option in (
            "temperature 0",
            "epsilon 0",
            "iterations 0",
            "prototypes 1",
            "queue -1",
            "freeze-steps -1",
            "queue-start 2",
        )
    ],
    *[(BarlowTwins(), f"--method.{option}") for option in ("redundancy -1", "dim 0")],
    *[(VICReg(), f"--method.{option}") for option in ("dim 0", "invariance -1", "variance 0", "covariance -1")],
    *[(NNCLR(), f"--method.{option}") for option in ("queue 1000", "temperature 0", "predictor-hidden 0")],
    *[(LeJEPA(), f"--method.{option}") for option in ("weight 0", "weight 1", "directions 0", "knots 1", "limit 0")],
    *[
        (DINO(), f"--method.{option}")
        for option in (
            "dim 0",
            "prototypes 1",
            "prototypes 2000000",
            "temperature 0",
            "teacher-temperature -1",
            "teacher-temperature-start 0",
            "teacher-warmup 2",
            "center-momentum -1",
            "momentum 2",
            "momentum-end 2",
            "freeze-steps -1",
        )
    ],
    (Supervised(), "--method.label-smoothing 2"),
    # aware
    (MoCo(), "--augself.crop -1"),
    (MoCo(), "--augself.layer layer9"),
    (MoCo(), "--augself.layer block3"),
    (MoCo(shuffle=True), "--augself.layer layer3"),
    *[(SimCLR(), f"--essl.{option}") for option in ("weight -1", "hidden 0", "dim 0", "view.rotation 0.5")],
    *[(SimCLR(), f"--equimod.{option}") for option in ("weight -1", "temperature 0", "dim 0", "experts 1")],
    (SimCLR(), "--equimod.include elephant"),
    (SimCLR(), "--equimod.weight 1 --view.blur 0"),
    (SimCLR(), "--equimod.weight 1 --equimod.experts 4 --cassle.conditioning concat"),
    (Supervised(), "--equimod.weight 1 --equimod.experts 4"),
    (SimCLR(), "--equimod-only --equimod.weight 1 --equimod.experts 4"),
    *[(SimCLR(), f"--stl.{option}") for option in ("weight -1", "rank -1", "temperature 0", "hidden 0")],
    (SimCLR(), "--stl.weight 1 --batch-size 5"),
    (SimCLR(), "--stl.weight 1 --view.scale 1 1"),
    (SimSiam(), "--stl.weight 1 --accumulate 2"),
    *[(SimCLR(), f"--care.{option}") for option in ("weight -1", "chunk 1")],
    (SimCLR(), "--care.weight 0.01 --batch-size 48"),
    (Supervised(), "--care.weight 0.01"),
    (SimCLR(), "--care-only --care.weight 0.01"),
    *[(SimCLR(), f"--seqjepa.{option}") for option in ("context 1", "depth 0", "momentum 2", "include x")],
    *[(SimCLR(), f"--{name}.{option}") for name in ("sen", "sie") for option in ("weight -1", "dim 0", "include x")],
    *[(SimCLR(), f"--ser.{option}") for option in ("temperature 0", "fraction 0", "fraction 2", "hidden 0")],
    (SimCLR(), "--ser.weight 1"),
    (SimCLR(), "--predictor.conditioning concat"),
    (SimSiam(), "--predictor.conditioning concat --num-local-crops 2"),
    (SimSiam(), "--predictor.width 0"),
    (SimSiam(), "--predictor.include x"),
    (SimSiam(), "--predictor.conditioning concat --view.blur 0"),
    (SimSiam(), "--predictor.conditioning concat --augself-only"),
    (MoCo(), "--essl-only --essl.weight 0"),
    (SwAV(), "--essl-only --essl.weight 1 --num-local-crops 2"),
    (SimCLR(), "--essl-only --essl.weight 1 --cassle.conditioning concat"),
    (MoCo(), "--augself.hidden 0"),
    (MoCo(), "--cassle.include color elephant"),
    (MoCo(), "--cassle.include"),
    (MoCo(), "--cassle.conditioning add --cassle.condition-encoder raw"),
    (MoCo(), "--cassle.conditioning hypernetwork-published --cassle.condition-encoder raw"),
    (MoCo(), "--cassle.depth 0 --cassle.width 0"),
    # models/build.py
    (MoCo(), "--backbone.name resnet5"),
    (MoCo(), "--backbone.name elephant"),
    (MoCo(), "--backbone.width 0"),
    (MoCo(), "--backbone.freeze-patch-embed"),
    (MoCo(), "--backbone.drop-path 0.1"),
    (MoCo(), "--backbone.patch-drop 0.5"),
    (MoCo(), f"{VIT} --backbone.drop-path 1"),
    (MoCo(), f"{VIT} --backbone.patch-drop -0.1"),
    (MoCo(), f"{VIT} --backbone.patch-drop 0.5 --augself.layer block3"),
    (MoCo(), f"{VIT} --backbone.width 32 --backbone.stem small"),
    (MoCo(), f"{VIT} --backbone.zero-init-residual --backbone.init torch"),
    # cli/pretrain.py
    (MoCo(), "--batchsize 128"),
    (MoCo(), "--method.qeue 4096"),
]

# Refusals without options to pass, and why.
WITHOUT_REMEDY = {
    "--view.flip 2": ("ViewPolicy.flip must satisfy 0 <= probability <= 1", "kernels know no options"),
    "--epochs x": ("--epochs takes a whole number", "no number can be guessed from a word"),
    "--epochs": ("Missing value for argument '--epochs'", "the value is the user's"),
    "--optim.name adam": ("Expected one of ('sgd', 'adamw', 'lars', 'lamb')", "the choices are listed"),
    "--preset fast": ("this recipe has paper, demo", "the presets are listed"),
    "--preset": ("paper or demo", "the presets are listed"),
    "--preset demo --from config.json": ("pass only one of them", "either can be meant"),
    "--from missing.json": ("pass the config.json of a run", "the file is the user's"),
    "--zzz 3": ("unknown option --zzz; --help lists all options", "no option is spelled alike"),
}  # fmt: skip


def recipe_of(method, run=Path("run")):
    def recipe():
        return dataclasses.replace(Pretrain(run=run), method=method)

    return recipe


def refused_by_options(method, processes=1, known=()):
    """The message with which the configuration of a command line is refused, on this many processes.

    known: (arguments, message) of a command line that was refused before.
    """

    def refusal(arguments):
        if known and list(arguments) == known[0]:
            return known[1]
        try:
            check_processes(parse(recipe_of(method), {}, arguments), processes)
        except UsageError as error:
            return str(error)
        return None

    return refusal


@pytest.mark.parametrize(
    ("method", "options"), REFUSED, ids=[f"{type(method).__name__} {options}" for method, options in REFUSED]
)
def test_remedy_works_and_comes_before_data_is_opened(method, options, tmp_path, capsys):
    arguments, missing = shlex.split(options), tmp_path / "missing.beton"
    recipe = recipe_of(method, tmp_path / "run")
    assert main(recipe, {}, [*arguments, "--data.train", str(missing)]) == 2
    said = capsys.readouterr().err.removeprefix("error: ").strip()
    assert missing.name not in said and not (tmp_path / "run").exists()
    assert 1 <= take_remedies(refused_by_options(method, known=(arguments, said)), arguments) <= 2


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ("--augment.blur-kernel 10", "--augment.blur-kernel 23"),  # the default at 224 px
        ("--augment.blur-kernel 10 --view.size 96", "--augment.blur-kernel 9"),
        (f"{SPLIT} --backbone.bn-group-size 7", "--backbone.bn-group-size 8"),
        ("--batch-size 100", "--method.queue 65500"),
        ("--backbone.name resnet-34", "--backbone.name resnet34"),
        (f"{VIT} --backbone.width 32 --backbone.stem small", "--backbone.width 64 --backbone.stem imagenet"),
    ],
)
def test_remedy_is_the_nearest_value_that_works(options, remedy):
    message = refused_by_options(MoCo())(shlex.split(options))
    assert remedies(message) == [remedy.split()]


@pytest.mark.parametrize(
    ("method", "options", "processes", "remedy"),
    [
        (SimSiam(), "--batch-size 250", 8, "--batch-size 256"),
        (MoCo(), "--batch-size 250 --method.queue 65500", 8, "--batch-size 256 --method.queue 65280"),
        (MoCo(), "--batch-size 100 --method.queue 1000", 3, "--batch-size 102 --method.queue 918"),
        (MoCo(), "--batch-size 96 --accumulate 2 --method.queue 960", 5, "--batch-size 120"),
        (SwAV(queue=3840), "--batch-size 256", 3, "--batch-size 384"),
        (MoCo(), f"--batch-size 250 {SPLIT} --backbone.bn-group-size 25 --method.queue 65500", 8, None),
        (MoCo(), f"{SPLIT} --batch-size 256", 16, "--backbone.bn-group-size 16"),
        (MoCo(), f"{SPLIT} --batch-size 16 --backbone.bn-group-size 2", 16, "--batch-size 32"),
        (SimSiam(), f"{SPLIT} --batch-size 64 --accumulate 2 --backbone.bn-group-size 4", 3, "--batch-size 72"),
    ],
)
def test_remedy_works_on_several_processes(method, options, processes, remedy):
    refusal = refused_by_options(method, processes)
    if remedy is not None:
        assert remedies(refusal(options.split())) == [remedy.split()]
    assert take_remedies(refusal, options.split(), most=1) == 1


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ("--batch-size 128 --method.queue 4096", "--batch-size 64"),
        ("--batch-size 100 --method.queue 1000", "--batch-size 50"),
        ("--batch-size 100 --method.queue 100", "--batch-size 50"),
        ("--batch-size 67 --method.queue 67", "--batch-size 64 --method.queue 64"),
        ("--batch-size 96 --accumulate 3 --method.queue 960", "--batch-size 60"),
        ("--batch-size 256 --accumulate 128 --method.queue 4096", "--batch-size 64 --accumulate 1"),
        (f"--batch-size 96 --method.queue 960 {SPLIT} --backbone.bn-group-size 48", "--batch-size 48"),
        (
            f"--batch-size 256 --accumulate 2 --method.queue 4096 {SPLIT} --backbone.bn-group-size 128",
            "--batch-size 64 --accumulate 1 --backbone.batch-norm plain",
        ),
    ],
)
def test_batch_larger_than_the_data_set(options, remedy, beton, tmp_path):
    def refusal(arguments):
        """As in training, up to the loader of the 64 photos."""
        try:
            open_loader(parse(lambda: tiny_config(beton, tmp_path), {}, arguments), World.single()).close()
        except UsageError as error:
            return str(error)
        return None

    assert remedies(refusal(options.split())) == [remedy.split()]
    assert take_remedies(refusal, options.split(), most=1) == 1


@pytest.mark.parametrize("end", ["--max-steps 1", "--dry-run"])
def test_command_runs_with_the_remedy(end, beton, tmp_path, capsys):
    def recipe():
        return tiny_config(beton, tmp_path / "run")

    arguments = ["--batch-size", "128", "--method.queue", "128", "--device", "cpu", *end.split()]
    assert main(recipe, {}, arguments) == 2
    (remedy,) = remedies(capsys.readouterr().err.strip())
    assert remedy == ["--batch-size", "64"]
    assert main(recipe, {}, with_remedy(arguments, remedy)) == 0


@pytest.mark.parametrize("command", [[], ["--dry-run"]], ids=["training", "dry run"])
@pytest.mark.parametrize(
    "options",
    [
        "--backbone.name timm:vit_tiny_patch16_22",
        "--backbone.name timm:resnet18 --backbone.freeze-patch-embed",
        "--backbone.name timm:resnet18 --backbone.patch-drop 0.5",
        f"{VIT} --view.schedule 0:100 0.5:224",
        "--optim.implementation apex",
    ],
)
def test_packages_are_asked_before_data_is_opened(options, command, timm, tmp_path, capsys):
    arguments = [*options.split(), "--data.train", str(tmp_path / "missing.beton"), "--device", "cpu", *command]
    assert main(recipe_of(MoCo(), tmp_path / "run"), {}, arguments) == 2
    said = capsys.readouterr().err
    assert "missing.beton" not in said
    if "apex" in options:
        assert remedies(said.strip()) == [["--optim.implementation", "torch"]]
    elif "freeze" in options:
        assert remedies(said.strip()) == [["--backbone.no-freeze-patch-embed"]]
    elif "schedule" in options:
        assert remedies(said.strip()) == [["--view.schedule", "0:96", "0.5:224"]]
    elif "patch-drop" in options:
        assert remedies(said.strip()) == [["--backbone.patch-drop", "0"]]
    else:
        assert "did you mean timm:vit_tiny_patch16_224?" in said


def test_name_of_a_timm_model_without_the_prefix(timm):
    message = refused_by_options(MoCo())(["--backbone.name", "vit_tiny_patch16_224"])
    assert remedies(message)[1] == VIT.split()
    assert take_remedies(refused_by_options(MoCo()), ["--backbone.name", "vit_tiny_patch16_224"], most=1) == 1


@pytest.mark.parametrize("options", WITHOUT_REMEDY)
def test_refusal_without_a_remedy_names_what_is_expected(options):
    with pytest.raises(ValueError) as refusal:
        parse(recipe_of(MoCo()), {"demo": recipe_of(MoCo())}, options.split())
    assert WITHOUT_REMEDY[options][0] in str(refusal.value) and not remedies(str(refusal.value))


@pytest.mark.parametrize("option", ["--data.train", "--data.val", "--init", "--run"])
def test_an_empty_path_is_refused_and_is_not_the_current_folder(option):
    for words in ([f"{option}="], [option, ""], [option]):
        message = refused_by_options(MoCo())(words)
        assert f"{option} is empty" in message
        assert ("None" in message) == (option in ("--data.val", "--init"))
    assert refused_by_options(MoCo())([option, "."]) is None
    with pytest.raises(UsageError, match=r"--data\.val is empty; pass a path"):
        Data(val="")


def test_refusal_that_needs_other_photos(tmp_path):
    """No option can replace photos: the messages name the form of the data instead."""
    config = parse(lambda: tiny_config(None, tmp_path), {}, [])
    with pytest.raises(UsageError, match="no training photos") as refusal:
        open_loader(config, World.single())
    assert remedies(str(refusal.value)) == [["--data.train", "FILE.beton"], ["--data.train", "FOLDER"]]
    with pytest.raises(UsageError, match="at least two classes"):
        build_learner(dataclasses.replace(config, method=Supervised()), num_classes=1)
    with pytest.raises(UsageError, match="larger than the data set of 1 photos; use more photos"):
        check_photos(config, 1, 1)


def test_photos_without_the_name_of_the_option():
    with pytest.raises(UsageError) as refusal:
        parse(recipe_of(MoCo()), {}, ["photos.beton", "--epochs", "3"])
    (remedy,) = remedies(str(refusal.value))
    config = parse(recipe_of(MoCo()), {}, ["--epochs", "3", *remedy])
    assert str(config.data.train) == "photos.beton"


def test_the_parser_of_remedies():
    """Its own grammar, so that a remedy it misses does not count as one."""
    assert remedies("--x 3 is wrong; pass --a 1 --b.c-d 0.2 1.0, or --no-e: f") == [
        ["--a", "1", "--b.c-d", "0.2", "1.0"],
        ["--no-e"],
    ]
    assert remedies("no; pass --a 23, the default for this size") == [["--a", "23"]]
    assert remedies("no; pass a smaller one") == []
    with pytest.raises(AssertionError, match="can be copied"):
        remedies("no; pass --a 3 with more photos")
    assert with_remedy(["--on", "--a.flag", "--b=1", "--c", "1", "2"], ["--a.no-flag", "--b", "2", "--c", "3"]) == [
        "--on", "--a.no-flag", "--b", "2", "--c", "3",
    ]  # fmt: skip


def test_views_of_byol_keep_their_own_sizes_equal():
    """Both alternatives give the two views one size."""
    base = dataclasses.replace(Pretrain(), view=ViewPolicy.byol(0), view2=ViewPolicy.byol(1), method=BYOL())

    def refusal(arguments):
        try:
            parse(lambda: base, {}, arguments)
        except UsageError as error:
            return str(error)
        return None

    assert remedies(refusal(["--view.size", "96"])) == [["--view2.size", "96"], ["--view.size", "224"]]
    assert take_remedies(refusal, ["--view.size", "96"], most=1) == 1


def test_backbone_of_the_api_gives_the_same_message():
    with pytest.raises(UsageError, match=r"pass --backbone\.name resnet50$"):
        Backbone(name="resnet500")
