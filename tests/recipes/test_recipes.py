"""Every recipe gives a complete configuration whose method takes steps on real photos."""

import dataclasses
import json
import re
import runpy
from pathlib import Path

import pytest
from tiny_aware import BACKBONES, OBJECTIVES

from fastaugself import CASSLE, Augment, Backbone, Data, Log, Pretrain
from fastaugself.cli.recipe_file import open_recipe
from fastaugself.config.serialize import from_dict, to_dict
from fastaugself.distributed import World
from fastaugself.training.trainer import Trainer

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.py"))
NARROW = {"dim": 32, "hidden": 32, "prototypes": 12, "predictor_hidden": 16, "freeze_steps": 1, "queue": 32}


def presets(path):
    """Every configuration that the recipe's command offers, by its preset."""
    recipe, others, _ = open_recipe(path)
    assert recipe.__name__ == path.stem
    return {name: preset() for name, preset in {"paper": recipe, **others}.items()}


def tiny(config, beton, run, **changes):
    """The recipe's method, views, optimizer and heads at the size of a test, on 64 small photos."""
    fields = {f.name for f in dataclasses.fields(config.method)}
    method = dataclasses.replace(config.method, **{k: v for k, v in NARROW.items() if k in fields})
    vit = next((BACKBONES[options.name] for options in config.aware if options.name in BACKBONES), None)
    name, size = vit or ("resnet18", 24)
    return dataclasses.replace(
        config,
        data=Data(train=beton, source="native", workers=1),
        view=dataclasses.replace(config.view, size=size),
        view2=config.view2 and dataclasses.replace(config.view2, size=size),
        local_crop=dataclasses.replace(config.local_crop, size=16),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name=name) if vit else Backbone(name=name, width=8, stem="small"),
        method=method,
        augself=dataclasses.replace(config.augself, hidden=16),
        aware=tuple(dataclasses.replace(OBJECTIVES[options.name], only=options.only) for options in config.aware),
        log=Log(every=1, tensorboard=False),
        run=run,
        epochs=1,
        batch_size=16,
        max_steps=2,
        **changes,
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_documented_and_survives_its_file(path):
    found, text = presets(path), path.read_text()
    for config in found.values():
        assert from_dict(Pretrain, json.loads(json.dumps(to_dict(config)))) == config
    assert f"recipes/{path.name}" in text and re.search("has not been run yet|The longest\\s+run", text)
    assert found["paper"].run == Path("runs") / path.stem
    # A preset has a folder of its own, unless it is the recipe itself by another name.
    folders = {}
    for config in found.values():
        assert folders.setdefault(config.run, config) == config
    said = re.findall(r"--preset ([\w-]+)", text)
    families = ("METHOD", "METHOD-augself")  # one word for many
    assert said or len(found) == 1
    assert all(name in found or name in families for name in said)
    assert len(found) > 10 or all(name == "paper" or f"--preset {name}" in text for name in found)


@pytest.mark.parametrize("stem", ["stl10", "imagenet100_moco_augself", "study"])
def test_baseline_augself_and_cassle_differ_in_nothing_else(stem):
    found = presets(RECIPES[0].parent / f"{stem}.py")
    compared = [name for name in found if name + "-augself-cassle" in found]
    assert len(compared) >= 6
    for name in compared:
        baseline = found[name]
        assert not baseline.augself.weights and not baseline.cassle.condition_dim
        for parts in ("-augself", "-cassle", "-augself-cassle"):
            other = found[name + parts]
            assert bool(other.augself.weights) == ("augself" in parts)
            assert other.cassle.condition_dim == (13 if "cassle" in parts else 0)
            same = {"augself": baseline.augself, "cassle": baseline.cassle, "run": baseline.run}
            assert dataclasses.replace(other, **same) == baseline  # learning rate and all


def test_training_choices_of_the_study_change_nothing_else():
    found = presets(RECIPES[0].parent / "study.py")
    for method in ("mocov3", "moco", "dino"):
        base = found[method]
        fast = dataclasses.replace(base.method, split=2) if method != "dino" else None
        crops = found[method + "-multicrop"].local_crop
        assert (crops.size, crops.scale) == (32, (0.05, 0.2))
        for part, changes in {
            "-multicrop": {"num_local_crops": 4, "local_crop": crops},
            "-sizes": {"size_schedule": ("0:32", "0.5:48", "0.9:64")},
            **({"-fastmoco": {"method": fast}} if fast else {}),
        }.items():
            assert found[method + part] == dataclasses.replace(base, **changes, run=found[method + part].run)
    assert not {"simclr-fastmoco", "supervised-multicrop"} & set(found)


# The published settings, value by value.
@pytest.mark.parametrize(
    ("stem", "preset", "expected"),
    [
        ("stl10", "simsiam-augself", {"view.size": 96, "augment.mean": [0.43, 0.42, 0.39],
            "augment.std": [0.27, 0.26, 0.27], "augment.saturation": "hsv", "backbone.name": "resnet18",
            "backbone.zero_init_residual": True, "backbone.init": "torch", "method.layers": 2,
            "method.affine": True, "optim.lr": 0.03, "optim.weight_decay": 5e-4, "optim.schedule_by": "epoch",
            "optim.warmup_epochs": 0, "epochs": 200,
            "batch_size": 256, "augself.crop": 1.0, "augself.color": 1.0, "optim.decay_norm_bias": True}),
        ("stl10", "moco-augself", {"method.projector_norm": True, "method.queue": 65536, "method.momentum": 0.999,
            "method.temperature": 0.2, "optim.lr": 0.03}),
        ("stl10", "swav", {"method.prototypes": 100, "method.freeze_steps": 409, "method.epsilon": 0.05,
            "method.temperature": 0.1, "num_local_crops": 0, "method.queue": 0, "method.gather": False}),
        ("stl10", "swav-augself", {"method.reduction": "sum"}),
        ("imagenet100_moco_augself", "swav", {"method.reduction": "sum"}),
        ("imagenet_simclr_augself", "paper", {"method.layers": 3, "method.last_norm": True, "optim.lr": 0.3,
            "optim.weight_decay": 0.5e-4, "optim.norm_bias_lr_scale": 2.0, "optim.lr_in_velocity": True,
            "backbone.zero_init_residual": True}),
        ("imagenet_byol_augself", "paper", {"augment.saturation": "blend", "backbone.zero_init_residual": True,
            "method.last_bias": False}),
        ("imagenet_byol_augself", "long", {"method.last_bias": False, "method.momentum": 0.996}),
        ("imagenet_mocov3_augself", "sgd", {"method.temperature": 1.0, "backbone.zero_init_residual": True,
            "method.predictor_bias": False}),
        ("imagenet_barlow_augself", "paper", {"optim.min_lr": 0.0002}),
        ("imagenet_moco_augself", "paper", {"backbone.batch_norm": "sync", "method.shuffle": False}),
        ("imagenet_moco_augself", "shuffle", {"backbone.batch_norm": "plain", "method.shuffle": True,
            "batch_size": 256, "optim.lr": 0.03}),
        ("imagenet_swav_augself", "paper", {"optim.min_lr": 0.0006}),
        ("imagenet_fastmoco_augself", "paper", {"method.split": 2, "method.dim": 2048, "method.predictor_hidden": 512,
            "method.temperature": 1.0, "method.scaled_loss": False, "method.projector_affine": True, "optim.lr": 0.05,
            "optim.clip_grad": 1.0, "batch_size": 512, "epochs": 100, "view.scale": [0.2, 1.0]}),
        ("imagenet_barlow_augself", "imagenette_vits", {"method.dim": 2048, "view.scale": [0.08, 1.0],
            "view.saturation": 0.2, "optim.lr": 5e-4, "optim.weight_decay": 0.05, "optim.schedule": "constant"}),
        ("imagenet100_moco_augself", "dino-cassle", {"num_local_crops": 6, "method.freeze_steps": 494}),
        ("imagenet100_moco_augself", "fastmoco-augself", {"method.split": 2, "augself.crop": 0.5}),
        ("imagenet_vicreg_augself", "short", {"optim.min_lr": 0.0003}),
        ("imagenet_lejepa_augself", "paper", {"optim.min_lr": 5e-7}),
        ("imagenet_dino_augself", "paper", {"optim.min_lr": 5e-7, "optim.clip_grad": 3.0,
            "optim.clip_by": "parameter", "optim.weight_decay_end": None, "backbone.drop_path": 0.0}),
        ("imagenet_dino_augself", "vit-long", {"optim.min_lr": 2.5e-7, "optim.weight_decay": 0.04,
            "optim.weight_decay_end": 0.4, "optim.clip_grad": 3.0, "backbone.drop_path": 0.1}),
        ("stl10", "byol", {"method.hidden": 4096, "method.dim": 256, "method.momentum": 0.996}),
        ("stl10", "simsiam-augself-rotation", {"view.rotation": 0.5, "augself.rotation": 1.0}),
        ("stl10", "simsiam-augself-solarize", {"view.solarize": 0.5, "view.solarize_threshold": [0, 1],
            "augment.solarize_before_gray": True, "augment.saturation": "hsv"}),
        ("imagenet100_moco_augself", "paper", {"view.size": 224, "augment.saturation": "hsv", "optim.lr": 0.03,
            "optim.weight_decay": 1e-4, "epochs": 500, "augself.crop": 0.5, "augself.color": 0.5,
            "method.projector_norm": True, "batch_size": 256}),
        ("imagenet100_moco_augself", "simsiam", {"optim.lr": 0.05, "method.layers": 3, "method.affine": True}),
        ("imagenet100_moco_augself", "moco-cassle", {"optim.lr": 0.03, "cassle.depth": 6, "cassle.width": 64,
            "cassle.conditioning": "concat"}),
        ("imagenet100_moco_augself", "byol-cassle", {"method.hidden": 2048}),
        ("imagenet100_moco_augself", "barlow-cassle", {"optim.norm_bias_lr_scale": 0.024, "optim.warmup_epochs": 10,
            "method.redundancy": 0.0051, "method.dim": 8192, "epochs": 300, "optim.lr": 0.05}),
        ("imagenet100_moco_augself", "mocov3-cassle", {"method.momentum": 0.999, "method.momentum_schedule": False,
            "method.projector_layers": 3, "method.predictor_norm": True, "optim.name": "adamw",
            "backbone.freeze_patch_embed": True}),
        ("imagenet_moco_invariances", "paper", {"view.jitter": 0.8, "view.flip": 0.5, "method.projector_norm": False}),
        ("imagenet_moco_invariances", "ventral", {"view.jitter": 0, "view.gray": 0, "view.blur": 0, "view.flip": 0.5,
            "view.scale": [0.2, 1.0]}),
        ("imagenet_moco_invariances", "dorsal", {"view.jitter": 0.8, "view.gray": 0.2, "view.blur": 0.5,
            "view.flip": 0, "view.scale": [1, 1]}),
        ("imagenet_moco_invariances", "wide", {"backbone.width": 192, "method.dim": 384, "view.jitter": 0.8}),
        ("imagenet_barlow_augself", "paper", {"optim.name": "lars", "optim.lr": 0.2, "optim.weight_decay": 1e-6,
            "batch_size": 2048, "epochs": 1000, "view.blur": 1.0, "view2.solarize": 0.2,
            "backbone.zero_init_residual": True}),
        ("imagenet_swav_augself", "paper", {"num_local_crops": 6, "view.scale": [0.14, 1], "local_crop.size": 96,
            "local_crop.scale": [0.05, 0.14], "view.brightness": 0.8, "view.hue": 0.2, "method.queue": 3840,
            "optim.lr": 0.6, "optim.weight_decay": 1e-6, "optim.adapt_norm_bias": True, "method.freeze_steps": 5005}),
        ("imagenet_mocov3_augself", "vit", {"optim.name": "adamw", "optim.lr": 1.5e-4, "optim.weight_decay": 0.1,
            "optim.warmup_epochs": 40, "epochs": 300, "method.temperature": 0.2,
            "method.projector_layers": 3, "view.scale": [0.08, 1.0]}),
        ("imagenet_mocov3_augself", "vit-block3", {"augself.layer": "block3", "epochs": 100, "batch_size": 2048}),
        ("imagenet_simclr_equimod", "paper", {"aware.equimod.weight": 1.0, "aware.equimod.temperature": 0.2,
            "aware.equimod.dim": 128, "optim.lr": 2.4 * 256 / 4096, "epochs": 800, "method.temperature": 0.2}),
        ("imagenet_simclr_equimod", "byol", {"optim.lr": 4.8 * 256 / 4096, "optim.weight_decay": 1.5e-6,
            "method.momentum": 0.996, "epochs": 1000}),
        ("imagenet_mocov3_ser", "paper", {"aware.ser.weight": 1.0, "aware.ser.temperature": 0.5,
            "aware.ser.layer": "block3", "aware.ser.fraction": 0.01, "optim.lr": 3e-4, "batch_size": 2048}),
        ("stl10", "simclr-star", {"aware.equimod.residual": True, "aware.equimod.experts": 16, "epochs": 200}),
        ("stl10", "simclr-stl", {"aware.stl.transform_weight": 0.1, "optim.lr": 0.03, "optim.weight_decay": 5e-4}),
        ("imagenet_simclr_essl", "paper", {"aware.essl.weight": 0.4, "aware.essl.view.size": 96,
            "aware.essl.view.scale": [0.05, 0.14], "aware.essl.view.blur": 0.1, "aware.essl.hidden": 2048,
            "aware.essl.dim": 128, "optim.lr": 4.8 * 256 / 4096, "method.temperature": 0.2, "batch_size": 4096}),
        ("imagenet_simclr_essl", "simsiam", {"aware.essl.weight": 0.08, "aware.essl.dim": 256, "optim.lr": 0.05,
            "batch_size": 512}),
        ("imagenet_vicreg_augself", "paper", {"optim.name": "lars", "optim.lr": 0.2, "optim.weight_decay": 1e-6,
            "batch_size": 2048, "epochs": 1000, "method.dim": 8192, "method.invariance": 25, "method.variance": 25,
            "method.covariance": 1, "optim.decay_norm_bias": False, "optim.warmup_epochs": 10, "view.blur": 1.0,
            "view2.solarize": 0.2, "backbone.zero_init_residual": True}),
        ("imagenet_vicreg_augself", "short", {"optim.lr": 0.3, "batch_size": 512, "epochs": 100}),
        ("imagenet_lejepa_augself", "paper", {"optim.name": "adamw", "optim.lr": 5e-4, "optim.weight_decay": 5e-4,
            "num_local_crops": 6, "view.scale": [0.3, 1.0], "local_crop.size": 98, "local_crop.scale": [0.05, 0.3],
            "view.brightness": 0.4, "view.contrast": 0.4, "view.saturation": 0.2, "view.hue": 0.1, "view.jitter": 0.8,
            "view.gray": 0.2, "view.blur": 0.5, "view.solarize": 0.2, "local_crop.solarize": 0.2,
            "method.directions": 1024, "method.knots": 17, "method.limit": 3.0}),
        ("imagenet_lejepa_augself", "vit", {"optim.weight_decay": 0.05, "local_crop.size": 96}),
        ("imagenet_dino_augself", "paper", {"optim.name": "sgd", "optim.lr": 0.03, "optim.weight_decay": 1e-4,
            "num_local_crops": 8, "view.scale": [0.14, 1.0], "view2.scale": [0.14, 1.0], "local_crop.blur": 0.5,
            "local_crop.scale": [0.05, 0.14], "local_crop.size": 96, "view.blur": 1.0, "view2.blur": 0.1,
            "view2.solarize": 0.2, "local_crop.solarize": 0.0, "view.saturation": 0.2, "method.prototypes": 65536,
            "method.momentum": 0.996, "method.teacher_temperature": 0.04, "method.freeze_steps": 2502,
            "method.fixed_length": True, "optim.warmup_epochs": 10, "epochs": 100}),
        ("imagenet_dino_augself", "vit", {"optim.name": "adamw", "optim.lr": 5e-4, "optim.weight_decay": 0.04,
            "view.scale": [0.4, 1.0], "view2.scale": [0.4, 1.0], "local_crop.scale": [0.05, 0.4]}),
        ("imagenet_dino_augself", "vit-long", {"method.teacher_temperature": 0.07, "method.teacher_warmup": 0.1,
            "method.teacher_temperature_start": 0.04, "method.fixed_length": False, "epochs": 300}),
        ("imagenet_mocov3_augself", "paper", {"method.temperature": 1.0, "view.scale": [0.2, 1.0],
            "view.saturation": 0.2, "view2.blur": 0.1}),
    ],
)  # fmt: skip
def test_recipe_has_the_published_values(stem, preset, expected):
    config = presets(RECIPES[0].parent / f"{stem}.py")[preset]
    assert config.augment.blur_kernel_at(config.view.size) == {96: 9, 224: 23}[config.view.size]
    for option, value in expected.items():
        found = to_dict(config)
        for name in option.split("."):
            found = found[name]
        assert found == value, option


# Also with CASSLE, for one recipe of each method that has a projector.
CONDITIONED = [path for path in RECIPES if re.fullmatch(r"imagenet_(?!supervised)\w+_augself", path.stem)]


@pytest.mark.parametrize(
    ("path", "conditioned"),
    [*((path, False) for path in RECIPES), *((path, True) for path in CONDITIONED)],
    ids=[*(path.stem for path in RECIPES), *(path.stem + "+cassle" for path in CONDITIONED)],
)
def test_recipe_takes_steps_on_real_photos(path, conditioned, beton, tmp_path, request):
    config = open_recipe(path).recipe()
    if any(options.name in BACKBONES for options in config.aware):
        request.getfixturevalue("timm")
    cassle = CASSLE(conditioning="concat", depth=2, width=8) if conditioned else CASSLE()
    trainer = Trainer(tiny(config, beton, tmp_path, cassle=cassle), World.single())
    try:
        trainer.fit()
    finally:
        trainer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    losses = [name for options in trainer.config.objectives.values() for name in options.weights]
    expected = {"loss", *(["loss_ssl"] if trainer.config.base_loss else []), *("loss_" + name for name in losses)}
    assert all(expected <= line.keys() for line in lines)


def test_help_begins_with_the_files_own_words(monkeypatch, capsys):
    path = next(path for path in RECIPES if path.stem == "stl10")
    monkeypatch.setattr("sys.argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    shown, words = " ".join(capsys.readouterr().out.split()), runpy.run_path(str(path))["__doc__"]
    assert end.value.code == 0 and words.split("\n\n")[0] in shown and " ".join(words.split()[-6:]) in shown
