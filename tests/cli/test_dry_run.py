"""`--dry-run`: prints the plan of a run and writes no files."""

import dataclasses
import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from fastaugself import AugSelf, Pretrain, ViewPolicy
from fastaugself.aware import ESSL
from fastaugself.aware.cassle import CASSLE
from fastaugself.cli import estimate
from fastaugself.cli.estimate import Built, count, probe_network
from fastaugself.cli.pretrain import main
from fastaugself.methods import MoCo
from fastaugself.methods.simclr import SimCLR
from fastaugself.methods.swav import SwAV
from fastaugself.models.build import Backbone, build_backbone

SMALL = ["--view.size", "32", "--augment.blur-kernel", "5", "--backbone.name", "resnet18", "--backbone.width", "8",
         "--method.queue", "64", "--batch-size", "8", "--device", "cpu"]  # fmt: skip


def dry(arguments, capsys):
    code = main(Pretrain, {}, [*SMALL, "--dry-run", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_plan_is_printed_and_no_file_is_written(beton, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, _ = dry(["--data.train", beton, "--epochs", "10", "--run", "runs/new"], capsys)
    assert code == 0 and list(tmp_path.iterdir()) == []
    assert out.startswith("photos ") and "{" not in out  # the plan first, and no configuration
    assert "steps: 10 epochs of " in out and "learning rate 0.0009375 after" in out  # 0.03 x 8 / 256
    for line in ("model     resnet18", "time      about ", "memory    ", "disk      "):
        assert line in out


def test_the_configuration_is_printed_on_request_and_can_be_read_again(beton, tmp_path, capsys):
    arguments = [*SMALL, "--data.train", str(beton), "--epochs", "10"]
    assert main(Pretrain, {}, [*arguments, "--print-config"]) == 0
    printed = capsys.readouterr().out
    config = json.loads(printed)
    assert config["epochs"] == 10 and config["view"]["size"] == 32 and config["backbone"]["name"] == "resnet18"
    (tmp_path / "config.json").write_text(printed)
    assert main(Pretrain, {}, ["--from", str(tmp_path / "config.json"), "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out) == config
    assert main(Pretrain, {}, [*arguments, "--dry-run", "--print-config"]) == 0
    plan, _, after = capsys.readouterr().out.partition("\n\n")
    assert plan.startswith("photos ") and json.loads(after) == config


def test_wrong_options_are_refused_before_the_configuration_is_printed(capsys):
    assert main(Pretrain, {}, [*SMALL, "--epochs", "0", "--print-config"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "--epochs" in captured.err


def test_a_folder_is_counted_and_not_written(photo_folder, capsys):
    before = sorted(photo_folder.parent.iterdir())
    code, out, _ = dry(["--data.train", photo_folder], capsys)
    assert code == 0 and "which would be converted to a .beton file" in out
    assert sorted(photo_folder.parent.iterdir()) == before


def test_photos_of_a_folder_that_training_would_not_read_are_named(photo_folder, tmp_path, capsys):
    shutil.copytree(photo_folder, tmp_path / "photos")
    (tmp_path / "photos" / "rocket" / "x.heic").write_bytes(b"?")
    (tmp_path / "photos" / "rocket" / "x.jpg").symlink_to("gone")
    _, out, _ = dry(["--data.train", tmp_path / "photos"], capsys)
    assert "photos    65, of" in out and "1 not read, which may be photos: rocket/x.heic (" in out
    assert "training would refuse 1 of them: " in out and "rocket/x.jpg is a link that leads nowhere" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "no training photos"), (["--data.train", "nowhere.beton"], "nowhere.beton"), (["--epochs", "0"], "--epochs")],
    ids=["no photos", "no file", "no epochs"],
)
def test_options_that_training_refuses_are_refused(arguments, message, capsys):
    code, _, error = dry(arguments, capsys)
    assert code == 2 and message in error and error.count("\n") == 1


def test_a_plan_with_a_fault_prints_it_and_exits_with_1(beton, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    code, out, _ = dry(["--data.train", beton], capsys)
    assert code == 1 and "fault     " in out


def test_a_second_view_copies_the_first_except_for_its_own_options(beton, capsys):
    options = ["--view2.scale", "0.3", "0.9", "--view.gray", "0", "--view2.hue=0.3", "--data.train", beton]
    code = main(Pretrain, {}, [*SMALL, "--print-config", *map(str, options)])
    config = json.loads(capsys.readouterr().out)
    assert code == 0 and (config["view"]["size"], config["view"]["gray"], config["view"]["hue"]) == (32, 0, 0.1)
    assert config["view2"] == {**config["view"], "hue": 0.3, "scale": [0.3, 0.9]}


def test_photos_that_share_parameters_are_counted(beton, capsys):
    care = ["--method.queue", "48", "--batch-size", "48", "--care.weight", "0.01", "--care.chunk", "24"]
    code, out, _ = dry(["--data.train", beton, *care], capsys)
    assert code == 0 and "GFLOP per photo" in out


def small(**changes):
    config = Pretrain(
        view=ViewPolicy(size=32), backbone=Backbone("resnet18", width=8), method=MoCo(queue=64), batch_size=8,
        augself=AugSelf(crop=0, color=0),
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


def operations(module, size):
    """Twice the multiplications of the convolutions, for one photo, from their shapes: (all, those of the first)."""
    found = []

    def add(convolution, inputs, output):
        per_value = convolution.in_channels * convolution.kernel_size[0] * convolution.kernel_size[1]
        found.append(2 * output[0].numel() * per_value)

    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(add)
    with torch.no_grad():
        module.eval()(torch.zeros(1, 3, size, size))
    return sum(found), found[0]


@pytest.mark.parametrize(("method", "passes"), [(MoCo(queue=64), (1, 1)), (SimCLR(), (2, 0))], ids=["moco", "simclr"])
def test_the_operations_of_a_step_are_those_of_its_passes(method, passes):
    """A trained pass costs three forward passes, except that the first layer needs no gradient of the photo."""
    built = count(small(method=method), num_classes=0, batch_size=8)
    backbone, _ = build_backbone(small().backbone)
    forward, first = operations(backbone, 32)
    trained, momentum = passes
    assert built.backbone == sum(p.numel() for p in backbone.parameters())
    expected = trained * (3 * forward - first) + momentum * forward
    assert expected < built.flops < 1.15 * expected  # the rest are heads and the loss


def test_views_of_every_kind_are_counted():
    """Local crops and the views of an objective add their operations; nothing is computed or allocated."""
    swav = small(method=SwAV(prototypes=8), num_local_crops=4, local_crop=ViewPolicy(size=16), cassle=CASSLE(width=8))
    less = count(dataclasses.replace(swav, num_local_crops=0), num_classes=0, batch_size=8).flops
    assert 1.3 * less < count(swav, num_classes=0, batch_size=8).flops < 3 * less
    essl = small(method=SimCLR(), aware=(ESSL(view=ViewPolicy(size=32)),))
    assert (
        count(essl, num_classes=0, batch_size=8).flops
        > 1.2 * count(small(method=SimCLR()), num_classes=0, batch_size=8).flops
    )
    assert torch.autocast.__module__.startswith("torch.")  # as before


def test_the_timed_network_is_small(monkeypatch):
    big = small(backbone=Backbone("resnet50", width=256), view=ViewPolicy(size=224))
    sizes = Built(backbone=370_000_000, trainable=370_000_000, flops=1e12)
    assert probe_network(big, sizes) == (Backbone("resnet18"), 64)
    own = Backbone("resnet50", batch_norm="sync", zero_init_residual=True)
    used, side = probe_network(small(backbone=own), sizes._replace(backbone=23_000_000))
    assert (used, side) == (Backbone("resnet50"), 32)
    monkeypatch.setattr(estimate, "train_rate", lambda backbone, side: (2e9, 5))
    found = estimate.estimate(small(), sizes._replace(flops=1e9), torch.device("cpu"), num_classes=0, batch_size=8)
    assert found.seconds == 0.5 and "estimated: 1 GFLOP per photo" in found.how and "on 5 photos" in found.how


def test_a_model_that_takes_no_small_photos_is_replaced(monkeypatch):
    def rate(backbone, side):
        if backbone.name.startswith("timm:"):
            raise AssertionError("Input height (64) doesn't match model (224)")
        return 1e9, 2

    monkeypatch.setattr(estimate, "train_rate", rate)
    config = small(backbone=Backbone("timm:vit_tiny_patch16_224"))
    sizes = Built(5_000_000, 5_000_000, 1e9)
    assert "resnet18" in estimate.estimate(config, sizes, torch.device("cpu"), num_classes=0, batch_size=8).how


def test_weights_that_do_not_fit_are_refused(beton, tmp_path, capsys):
    torch.save({"other": torch.zeros(3)}, tmp_path / "weights.pt")
    code, out, error = dry(["--data.train", beton, "--init", tmp_path / "weights.pt"], capsys)
    assert code in (1, 2) and out == "" and "weights.pt" in error


def test_a_schedule_of_sizes_is_counted(beton, capsys):
    """Convolutions cost in proportion to the area: half of the run at a quarter of it saves three eighths."""
    times = []
    for schedule in ([], ["--view.schedule", "0:32", "0.5:64"]):
        code, out, _ = dry(["--view.size", "64", "--batch-size", "16", *schedule, "--data.train", beton], capsys)
        assert code == 0
        times.append(out)
    assert "sizes" not in times[0]
    assert "sizes     32 px, 64 px from 50% of the run\n" in times[1]
    fewer, bytes_fewer = map(int, re.search(r"(\d+)% fewer operations and (\d+)% fewer bytes", times[1]).groups())
    assert bytes_fewer == 38 and 20 <= fewer <= 38  # the heads cost the same at every size
