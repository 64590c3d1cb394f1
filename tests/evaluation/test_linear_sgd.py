"""Linear evaluation by SGD: heads, presets, choice on validation, resuming, and errors."""

import dataclasses
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_eval import call
from torch import nn

from fastaugself.distributed import World
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation import linear_sgd, training_loop
from fastaugself.evaluation.commands_linear_sgd import LinearSgd
from fastaugself.evaluation.crops import TrainingCrops
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoder import Encoder
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.head_inputs import HeadInputs
from fastaugself.evaluation.heads import Head, Heads
from fastaugself.evaluation.linear_presets import GRID, PRESETS, decay
from fastaugself.evaluation.linear_sgd import HeadTraining
from fastaugself.evaluation.top_k import CentreCrops, rows
from fastaugself.runs import checkpoint

ALONE = World.single()


def trained(run, photos, preset, heads, *, seed=0, forward=3):
    """Heads after all steps of a preset on the training photos."""
    encoder = load_encoder(str(run))
    inputs = HeadInputs(encoder, preset.inputs)
    linear_sgd.frozen(inputs, ALONE.device)
    split = read_dataset(photos).splits["train"]
    crops = TrainingCrops(split, ALONE, preset.batch_size, forward, 32, encoder.mean, encoder.std, seed=seed)
    training = HeadTraining(
        inputs, Heads(heads, inputs.slices, 2, seed=seed), preset, ALONE, steps_per_epoch=crops.steps_per_epoch,
        dtype=torch.float32,
    )  # fmt: skip
    losses = [training.step(part) for part in crops.steps(0, preset.epochs * crops.steps_per_epoch)]
    return training, torch.stack([loss for loss in losses if loss is not None])


def test_a_head_is_what_a_plain_pytorch_loop_trains_on_the_same_crops(run, photos):
    preset = dataclasses.replace(PRESETS["moco"], epochs=5, batch_size=6, lr=(0.7,))
    training, losses = trained(run, photos, preset, [Head("pooled", 0.7, 1e-3)])

    encoder = load_encoder(str(run))
    head = nn.Linear(encoder.num_features, 2)
    with torch.no_grad():
        torch.manual_seed(0)
        head.weight.copy_(torch.empty_like(head.weight).normal_(0, 0.01))
        head.bias.zero_()
    optimizer = torch.optim.SGD(head.parameters(), 0.7 * 6 / 256, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4], 0.1)
    split = read_dataset(photos).splits["train"]
    crops = TrainingCrops(split, ALONE, 6, 6, 32, encoder.mean, encoder.std, seed=0)
    expected = []
    for epoch in range(5):
        for part in crops.steps(2 * epoch, 2 * epoch + 2):
            with torch.no_grad():
                features = encoder.module(part.x_BCHW)
            loss = F.cross_entropy(head(features), part.labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.detach())
        scheduler.step()
    torch.testing.assert_close(losses[:, 0], torch.stack(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(training.heads.weights[0].detach(), head.weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(training.heads.biases[0].detach(), head.bias.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["moco", "simsiam"])
def test_a_head_of_a_grid_is_what_it_is_alone(run, photos, name):
    preset = dataclasses.replace(PRESETS[name], epochs=3, batch_size=8)
    heads = [Head("pooled", lr, decay) for lr in (0.01, 3.0, 1e8) for decay in (0.0, 0.1)]
    together, losses = trained(run, photos, preset, heads)
    for i in (0, 3, 5):
        alone, own_losses = trained(run, photos, preset, [heads[i]])
        torch.testing.assert_close(losses[:, i], own_losses[:, 0], rtol=1e-3, atol=1e-5)
        if i < 4:  # the others are chaotic
            torch.testing.assert_close(
                together.heads.weights[i].detach(), alone.heads.weights[0].detach(), rtol=1e-3, atol=1e-6
            )


def test_lars_is_apexs_larc_around_sgd_biases_included(run, photos):
    preset = dataclasses.replace(PRESETS["simsiam"], epochs=4, batch_size=8, lr=(8.0,))
    training, _ = trained(run, photos, preset, [Head("pooled", 8.0, 0.0)])

    encoder = load_encoder(str(run))
    weight, bias = torch.empty(2, encoder.num_features), torch.zeros(2)
    weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    parameters, velocity = [weight.double(), bias.double()], [0.0, 0.0]
    crops = TrainingCrops(read_dataset(photos).splits["train"], ALONE, 8, 8, 32, encoder.mean, encoder.std)
    for part in crops.steps(0, 8):
        x, y = encoder.module(part.x_BCHW).double(), F.one_hot(part.labels_B, 2)
        residual = ((x @ parameters[0].T + parameters[1]).softmax(1) - y) / 8
        lr = 8.0 * 8 / 256 * 0.5 * (1 + math.cos(math.pi * (part.step // 2) / 4))
        for i, gradient in enumerate((residual.T @ x, residual.sum(0))):
            norm = parameters[i].norm()
            adapted = 1e-3 * norm / gradient.norm() * gradient if norm > 0 else gradient
            velocity[i] = 0.9 * velocity[i] + adapted
            parameters[i] = parameters[i] - lr * velocity[i]
    torch.testing.assert_close(training.heads.weights[0].detach().double(), parameters[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(training.heads.biases[0].detach().double(), parameters[1], rtol=1e-3, atol=1e-6)


def test_presets_have_the_published_numbers():
    moco, simsiam, v3, vit = (PRESETS[name] for name in ("moco", "simsiam", "moco-v3", "moco-v3-vit"))
    assert (moco.epochs, moco.batch_size, moco.lr, moco.optimizer) == (100, 256, (30.0,), "sgd")
    rates = [30 * decay(moco.schedule, epoch * 7, steps_per_epoch=7, epochs=100) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    assert simsiam.lr[0] * simsiam.batch_size / 256 == pytest.approx(1.6) and simsiam.optimizer == "lars"
    assert (v3.epochs, v3.batch_size, v3.lr, vit.lr) == (90, 1024, (0.1,), (3.0,)) and simsiam.epochs == 90
    cosine = [decay("cosine by epoch", step, steps_per_epoch=10, epochs=4) for step in (0, 9, 10, 20, 39)]
    assert cosine == pytest.approx([1, 1, 0.5 * (1 + 0.5**0.5), 0.5, 0.5 * (1 - 0.5**0.5)])
    assert decay("cosine by step", 30, steps_per_epoch=10, epochs=4) == pytest.approx(0.5 * (1 - 0.5**0.5))
    assert pytest.approx([m * 10.0**e for e in (-5, -4, -3, -2) for m in (1, 2, 5)] + [0.1]) == list(GRID)
    assert LinearSgd(("x",), "x", preset="dino", lr=(1.0, 1e-3)).title == "linear-sgd dino, lr 1 0.001"
    assert len(LinearSgd(("x",), "x", preset="dinov2").heads) == 52 and PRESETS["dino"].epochs == 100


# What heads read


@pytest.fixture
def vit(timm):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=0, reg_tokens=2)
    return Encoder("vit", "", model.eval(), 32, (0.5,) * 3, (0.5,) * 3, "")


def test_heads_read_the_class_tokens_of_the_last_blocks_and_the_mean_patch_token(vit):
    seen = []
    for block in vit.module.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    x = torch.randn(5, 3, 32, 32)
    inputs = HeadInputs(vit, ("cls", "cls+mean", "cls2", "cls3+mean"))
    with torch.no_grad():
        found = inputs(x)
        tokens = [vit.module.norm(output) for output in seen]
    cls, mean = [t[:, 0] for t in tokens], tokens[2][:, 3:].mean(1)
    expected = {"cls": cls[2:], "cls+mean": [cls[2], mean], "cls2": cls[1:], "cls3+mean": [*cls, mean]}
    for name, parts in expected.items():
        torch.testing.assert_close(found[:, inputs.slices[name]], torch.cat(parts, 1))
    torch.testing.assert_close(found[:, inputs.slices["cls"]], vit.module(x))  # what timm pools is the class token
    alone = HeadInputs(vit, ("cls2",))
    torch.testing.assert_close(alone(x), torch.cat(cls[1:], 1))
    assert alone.slices == {"cls2": slice(0, 2 * 192)}


def test_inputs_that_the_model_lacks_are_refused(vit, run):
    for names, message in [
        (("cls4",), "needs 4 blocks, vit has 3: pass --inputs cls3"),
        (("pooled", "cls"), "either pooled features or tokens"),
        (("clss",), "--inputs clss is unknown: pass pooled, cls"),
        (("cls0",), "--inputs cls0 is unknown"),
    ]:
        with pytest.raises(UsageError, match=message):
            HeadInputs(vit, names)
    with pytest.raises(UsageError, match="tiny has no class token, which the heads of cls4 read: pass --inputs pooled"):
        HeadInputs(load_encoder(str(run)), ("cls4",))


# Test


def test_top_1_and_top_5_hits_are_scikit_learns(photos, monkeypatch):
    from sklearn.metrics import top_k_accuracy_score

    split = read_dataset(photos).splits["test"]
    labels_N = np.array([0, 3, 8, 1, 1, 6, 2, 7])
    split = dataclasses.replace(split, labels_N=labels_N)
    scores_HNC = torch.randn(2, 8, 9, generator=torch.Generator().manual_seed(1))
    asked = []

    def logits(x_BCHW):
        start = sum(asked)
        asked.append(len(x_BCHW))
        return scores_HNC[:, start : start + len(x_BCHW)]

    hits = CentreCrops(12, 14, "bilinear", (0.5,) * 3, (0.5,) * 3).hits(logits, split, ALONE, batch_size=3)
    assert asked == [3, 3, 2]
    for head in (0, 1):
        top1, top5 = rows(("m",), hits.of(head), split, "top1", seed=0, details={})
        scores_NC = scores_HNC[head].numpy()
        for row, k in ((top1, 1), (top5, 5)):
            assert row.score.value == pytest.approx(top_k_accuracy_score(labels_N, scores_NC, k=k, labels=range(9)))
            assert row.score.low <= row.score.value <= row.score.high
    (mean,) = rows(
        ("m",), hits.of(0), dataclasses.replace(split, labels_N=np.arange(8) % 5), "top1", seed=0, details={}
    )
    assert mean.metric == "top1"  # five classes: the top 5 are all


def test_processes_share_the_photos_and_one_without_a_photo_takes_part(photos):
    split = read_dataset(photos).splits["test"].take(np.array([0, 4]))
    crops = CentreCrops(12, 14, "bilinear", (0.5,) * 3, (0.5,) * 3)

    def logits(x_BCHW):
        return F.one_hot(torch.tensor([1] * len(x_BCHW)), 2)[None].float()

    parts = [
        crops.hits(logits, split, World(rank, 3, torch.device("cpu")), batch_size=4).top1_HN[0].tolist()
        for rank in (0, 1, 2)
    ]
    assert parts == [[False, False], [False, False], [False, True]]  # ranks 0 to 2 have no photo, photo 0, photo 1


# The command


@pytest.fixture
def sgd(train):
    """Calls the command; see `train`."""
    return partial(train, "linear-sgd")


def result(out):
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def newest(run):
    found = checkpoint.load(checkpoint.checkpoints(run)[-1])
    return found["step"], found["state"]


def test_one_head_trains_on_all_photos_and_the_result_says_how(sgd, tmp_path):
    assert sgd("--lr", 0.5) == 0
    record = result(tmp_path / "out")
    assert record["sizes"] == {"train": 16, "test": 8} and record["splits"] == "folders train, test"
    assert record["protocol"] == "linear-sgd moco, epochs 3, train batch 8, lr 0.5"
    assert record["options"]["epochs"] == 3 and record["options"]["lr"] == [0.5]
    (row,) = record["rows"]
    assert row["metric"] == "top1" and 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    assert folder.name.startswith("linear-sgd-photos-tiny-") and newest(folder)[0] == 6
    assert row["details"] == {"preset": "moco", "head": {"input": "pooled", "lr": 0.5, "weight_decay": 0.0}}


def test_the_best_of_several_heads_on_val_is_tested_and_a_diverged_one_is_not_chosen(sgd, tmp_path, monkeypatch):
    asked = []
    original = CentreCrops.hits
    monkeypatch.setattr(
        CentreCrops,
        "hits",
        lambda self, logits, split, *rest, **options: asked.append(len(split)) or original(
            self, lambda x: asked.append(tuple(logits(x).shape[:1])) or logits(x), split, *rest, **options
        ),
    )  # fmt: skip
    heads = ("--preset", "dino", "--lr", 1e-3, 0.3, 1e38, "--weight-decay", 0, 1e-4)
    assert sgd(*heads, "--epochs", 12, "--train-batch", 7) == 0
    assert asked == [2, (6,), 8, (1,)]  # all heads on val, and one on test
    record = result(tmp_path / "out")
    assert record["sizes"] == {"train": 14, "val": 2, "test": 8}
    details = record["rows"][0]["details"]
    vals = [head["val"] for head in details["heads"]]
    assert None in vals[4:]  # infinite after some steps
    best = max(v for v in vals if v is not None)
    chosen = "{input}, lr {lr:g}, weight decay {weight_decay:g}".format(**details["head"])
    assert chosen == details["heads"][vals.index(best)]["head"]


def test_a_run_that_is_stopped_resumes_to_the_same_heads_bit_by_bit(sgd, tmp_path, monkeypatch):
    assert sgd("--run", tmp_path / "whole") == 0
    step = HeadTraining.step
    taken, stops = [], iter([True])

    def interrupted(self, crops):
        if crops.step == 3 and next(stops, False):
            raise KeyboardInterrupt
        found = step(self, crops)
        taken.append(crops.step)
        return found

    monkeypatch.setattr(HeadTraining, "step", interrupted)
    monkeypatch.setattr(training_loop.Checkpoints, "due", lambda self: True)
    again = ("--run", tmp_path / "again", "--batch-size", 8)
    assert sgd(*again) == 130 and newest(tmp_path / "again")[0] == 3
    assert sgd(*again) == 0 and taken == [0, 1, 2, 3, 4, 5]
    (_, expected), (end, state) = newest(tmp_path / "whole"), newest(tmp_path / "again")
    assert end == 6
    assert all(torch.equal(value, expected["heads"][name]) for name, value in state["heads"].items())
    buffers = zip(state["optimizer"]["state"].values(), expected["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(a["momentum_buffer"], b["momentum_buffer"]) for a, b in buffers)
    assert sgd(*again) == 0 and len(taken) == 6  # finished: only tested again


def test_a_full_disk_costs_the_checkpoints_and_not_the_result(sgd, tmp_path, monkeypatch, capsys):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    assert sgd("--checkpoint-minutes", 0) == 0
    text = " ".join(capsys.readouterr().err.split())
    assert "warning: no checkpoint of step 6 was written to" in text and "No space left" in text
    assert result(tmp_path / "out")["rows"]
    assert not list((tmp_path / "out").glob("runs/*"))  # nothing empty is left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", 9.0), "holds an evaluation with --lr 30.0, this command has 9.0: pass the same options to resume it"),
        (("--epochs", 4), "--epochs 3, this command has 4"),
        (("--seed", 1), "--seed 0, this command has 1"),
        (("--preset", "moco-v3"), "with --lr 30.0, this command has 0.1"),
        (("--limit", 12), "--data photos (16 training photos"),
    ],
)
def test_a_folder_of_other_options_is_refused(sgd, tmp_path, capsys, options, message):
    assert sgd("--run", tmp_path / "run") == 0
    assert sgd("--run", tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "mocov2"), "--preset"),
        (("--lr", 0), "--lr must be above 0, got 0"),
        (("--lr", "nan"), "--lr must be above 0, got nan"),
        (("--weight-decay", -1), "--weight-decay must be at least 0, got -1"),
        (("--epochs", -1), "--epochs must be at least 0, got -1"),
        (
            ("--train-batch", 17),
            "--train-batch 17 is larger than the 16 training photos: pass --train-batch 16 or less",
        ),
        (("--preset", "dino-vit-small"), "tiny has no class token"),
        (("--resize", 8), "--resize 8 is below the 32 pixels of tiny's input: pass at least 32"),
        (("--fuse", "concat"), "--fuse"),
        (("--resplit",), "--resplit draws a validation split, and a single head is not chosen on one: leave it out"),
        (("--lr", 1e41), "the loss is NaN or Inf at step 2: pass a lower --lr"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(sgd, capsys, options, message):
    assert sgd(*options) in (1, 2)
    assert message in capsys.readouterr().err


def test_data_that_cannot_be_classified_is_refused(sgd, photos, tmp_path, capsys):
    for split in ("train", "test"):
        for file in (photos / split / "coffee").iterdir():
            file.unlink()
        (photos / split / "coffee").rmdir()
    assert sgd() == 2
    assert "photos has one class (chelsea): expected at least two" in capsys.readouterr().err
    loose = tmp_path / "loose"
    loose.mkdir()
    for file in (photos / "train" / "chelsea").iterdir():
        (loose / file.name).write_bytes(file.read_bytes())
    assert sgd(data=loose) == 2
    assert "loose has no train split, only all" in capsys.readouterr().err


def test_all_heads_diverged_is_an_error_that_names_the_remedy(run, photos):
    training, _ = trained(
        run, photos, dataclasses.replace(PRESETS["moco"], epochs=1, batch_size=8), [Head("pooled", 1, 0)]
    )
    with torch.no_grad():
        training.heads.weights[0][0, 0] = torch.inf
    with pytest.raises(RunError, match="pass a lower --lr"):
        linear_sgd.check_finite(training.heads)


def test_a_suite_trains_on_each_data_set_once_and_keeps_the_results(run, photos, tmp_path, monkeypatch):
    listed = tmp_path / "list.toml"
    common = f'path = "{photos}"\nepochs = 2\ntrain-batch = 8\n'
    listed.write_text(
        f'protocol = "linear-sgd"\n[data.grid]\n{common}preset = "dino"\nlr = [0.1, 1.0]\n[data.one]\n{common}'
        f'[data.tuned]\nprotocol = "finetune"\n{common}fraction = 0.5\n'
    )
    command = ("suite", run, "--suite", listed, "--out", tmp_path / "out", "--device", "cpu")
    assert call(*command) == 0
    protocols = {json.loads(path.read_text()).get("protocol", "suite") for path in (tmp_path / "out").glob("*.json")}
    assert protocols >= {
        "linear-sgd dino, epochs 2, train batch 8, lr 0.1 1",
        "linear-sgd moco, epochs 2, train batch 8",
        "finetune simclr, epochs 2, train batch 8",
    }

    def trained_again(*_arguments, **_options):
        raise AssertionError

    monkeypatch.setattr(training_loop, "train", trained_again)
    monkeypatch.setattr(LinearSgd, "evaluate", trained_again)
    assert call(*command) == 0  # all cells are kept
