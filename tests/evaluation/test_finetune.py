"""Fine-tuning: the step, parts of the labels, resuming, and errors."""

import copy
import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastaugself.data.inputs.convert import write_beton
from fastaugself.distributed import World
from fastaugself.errors import UsageError
from fastaugself.evaluation import training_loop
from fastaugself.evaluation.commands_finetune import Finetune
from fastaugself.evaluation.crops import TrainingCrops
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.evaluation.finetune import PRESETS, Finetuning
from fastaugself.evaluation.label_subset import fraction_of, listed
from fastaugself.evaluation.splits import Dataset, Split
from fastaugself.runs import checkpoint

ALONE = World.single()


def tuned(run, photos, preset, *, epochs=2, batch_size=8, **options):
    """A fine-tuning after all its steps, its crops, and the losses."""
    encoder = load_encoder(str(run))
    split = read_dataset(photos).splits["train"]
    crops = TrainingCrops(split, ALONE, batch_size, batch_size, 32, encoder.mean, encoder.std, seed=5)
    tuning = Finetuning(
        encoder, 2, preset, ALONE, epochs=epochs, steps_per_epoch=crops.steps_per_epoch, dtype=torch.float32, **options
    )
    losses = [tuning.step(part) for part in crops.steps(0, epochs * crops.steps_per_epoch)]
    return tuning, crops, torch.cat(losses)


def test_simclrs_fine_tuning_is_a_plain_pytorch_loop_with_nesterov_and_a_cosine(run, photos):
    tuning, crops, losses = tuned(run, photos, PRESETS["simclr"], seed=4)

    encoder = load_encoder(str(run))
    model = nn.Sequential(encoder.module, nn.Linear(encoder.num_features, 2)).requires_grad_(True).train()
    with torch.no_grad():
        model[1].weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(4))
        model[1].bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), 0.05 * 8 / 256, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    expected = []
    for part in crops.steps(0, 4):
        loss = F.cross_entropy(model(part.x_BCHW), part.labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        expected.append(loss.detach())
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-4, atol=1e-5)
    for name, value in model[0].state_dict().items():
        torch.testing.assert_close(tuning.method.backbone.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(tuning.method.classifier.weight, model[1].weight, rtol=1e-3, atol=1e-6)


def test_maes_fine_tuning_is_a_plain_pytorch_loop_with_adamw_groups_and_warmup(run, photos):
    preset = dataclasses.replace(PRESETS["mae"], layer_decay=0.5)
    tuning, crops, losses = tuned(run, photos, preset, epochs=8)

    encoder = load_encoder(str(run))
    classifier, backbone = nn.Linear(encoder.num_features, 2), encoder.module.requires_grad_(True).train()
    with torch.no_grad():
        classifier.weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
        classifier.bias.zero_()
    blocks = [(stage, block) for stage in (1, 2, 3, 4) for block in (0, 1)]
    groups = [{"params": [p], "scale": 1.0, "weight_decay": 0.05 * (p.ndim > 1)} for p in classifier.parameters()]
    for name, p in backbone.named_parameters():
        words = name.split(".")
        layer = blocks.index((int(words[0][5:]), int(words[1]))) + 1 if words[0].startswith("layer") else 0
        groups.append({"params": [p], "scale": 0.5 ** (9 - layer), "weight_decay": 0.05 * (p.ndim > 1)})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    expected = []
    for part in crops.steps(0, 16):
        epoch, peak, least = part.step / 2, 5e-4 * 8 / 256, 2.5e-7 * 8 / 256
        lr = peak * (part.step + 1) / 10 if epoch < 5 else least + (peak - least) * 0.5 * (
            1 + np.cos(np.pi * (epoch - 5) / 3)
        )  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        loss = F.cross_entropy(classifier(backbone(part.x_BCHW)), part.labels_B, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.detach())
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(tuning.method.classifier.weight, classifier.weight, rtol=1e-2, atol=1e-5)


def test_micro_batches_have_the_gradient_of_the_batch_but_for_batch_norm(run, photos):
    found = []
    for accumulate in (1, 2):
        encoder = load_encoder(str(run))
        split = read_dataset(photos).splits["train"]
        crops = TrainingCrops(split, ALONE, 8, 8, 32, encoder.mean, encoder.std)
        tuning = Finetuning(
            encoder, 2, PRESETS["simclr"], ALONE, epochs=1, steps_per_epoch=2, dtype=torch.float32,
            accumulate=accumulate,
        )  # fmt: skip
        tuning.method.eval()  # running statistics, as in no micro-batch
        found.append((tuning.step(next(crops.steps(0, 1))), tuning.method.classifier.weight.detach()))
    torch.testing.assert_close(found[0], found[1])


# Parts of the labels


def dataset_of(counts, names=()):
    labels_N = np.repeat(np.arange(len(counts)), counts)
    split = Split(np.zeros(len(labels_N)), labels_N, None, names)
    return Dataset("data", tuple("abcdefgh"[: len(counts)]), {"train": split}), split


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, [2, 13, 1]), (0.5, [10, 64, 4]), (1.0, [20, 129, 7])])
def test_a_fraction_has_its_share_of_every_class_and_depends_on_the_seed_alone(fraction, expected):
    dataset, split = dataset_of([20, 129, 7])
    parts = [fraction_of(dataset, split, fraction, seed=seed) for seed in (0, 0, 1)]
    assert all(np.bincount(part.labels_N).tolist() == expected for part in parts)
    if fraction < 1:
        chosen = [part.images.indices.tolist() for part in parts]
        assert chosen[0] == chosen[1] != chosen[2] and len(set(chosen[0])) == len(chosen[0])


@pytest.mark.parametrize("counts", [[20, 7, 100, 9], [3, 50], [1, 1], [501, 499, 12]])
def test_a_fraction_that_leaves_a_class_empty_is_refused_and_the_remedy_works(counts):
    dataset, split = dataset_of(counts)
    with pytest.raises(UsageError, match="without a photo") as error:
        fraction_of(dataset, split, 0.001, seed=0)
    text = str(error.value)
    least = float(text.partition("pass --fraction ")[2].split()[0])
    assert f"leaves class {'abcd'[int(np.argmin(counts))]} of data" in text and f"has {min(counts)}" in text
    part = fraction_of(dataset, split, least, seed=0)
    assert np.bincount(part.labels_N).min() >= 1


def test_a_list_names_photos_by_path_or_by_file_and_others_are_refused(photos, tmp_path):
    dataset = read_dataset(photos)
    split, path = dataset.splits["train"], tmp_path / "list.txt"
    (photos / "train" / "coffee" / "only.jpg").write_bytes((photos / "test" / "coffee" / "8.jpg").read_bytes())
    dataset = read_dataset(photos)
    split = dataset.splits["train"]
    path.write_text("train/chelsea/3.jpg\n\ntrain/coffee/0.jpg\nonly.jpg\n")
    part = listed(dataset, split, path, photos)
    assert [split.names[i] for i in part.images.indices] == ["chelsea/3.jpg", "coffee/0.jpg", "coffee/only.jpg"]
    for line, message in [
        ("3.jpg", "3.jpg names 2 photos, not one"),
        (
            "train/tea/3.jpg",
            "train/tea/3.jpg is none of the training photos of photos, whose first is train/chelsea/0.jpg",
        ),
    ]:
        path.write_text(f"train/chelsea/3.jpg\n{line}\n")
        with pytest.raises(UsageError, match=message):
            listed(dataset, split, path, photos)
    with pytest.raises(UsageError, match="cannot be read"):
        listed(dataset, split, tmp_path / "missing.txt", photos)


def test_a_list_names_photos_of_a_beton_file_by_their_source(photos, tmp_path):
    (tmp_path / "b").mkdir()
    for split in ("train", "test"):
        write_beton(photos / split, tmp_path / "b" / f"{split}.beton", progress=False)
    dataset, path = read_dataset(tmp_path / "b"), tmp_path / "list.txt"
    path.write_text("coffee/2.jpg\nchelsea/7.jpg\n")
    part = listed(dataset, dataset.splits["train"], path, tmp_path / "b")
    assert part.labels_N.tolist() == [0, 1] and part.images.indices.tolist() == [7, 10]
    path.write_text("chelsea/9.jpg\nchelsea/0.jpg\n")  # of the second and of the first file
    both = dataset.splits["train"].join(dataset.splits["test"])
    assert listed(dataset, both, path, tmp_path / "b").images.indices.tolist() == [0, 19]
    (tmp_path / "b" / "train.beton.manifest.jsonl").unlink()
    with pytest.raises(UsageError, match="have no names to be found by: pass --fraction instead of --subset"):
        listed(dataset, dataset.splits["train"], path, tmp_path / "b")


# The command


@pytest.fixture
def finetune(train):
    """Calls the command; see `train`."""
    return partial(train, "finetune")


def newest(run):
    found = checkpoint.load(checkpoint.checkpoints(run)[-1])
    return found["step"], found["state"]


def test_the_result_names_the_part_of_the_labels_and_the_numbers_used(finetune, tmp_path):
    assert finetune("--fraction", 0.5, "--lr", 0.2, "--train-batch", 4) == 0
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text())
    assert record["data"] == "photos, 50 % of labels" and record["sizes"] == {"train": 8, "test": 8}
    assert record["splits"] == "folders train, test; trained on 8 of 16 photos (0.5 of each class, seed 0)"
    options = record["options"]
    assert (options["epochs"], options["lr"], options["train_batch"], options["layer_decay"]) == (3, 0.2, 4, 1.0)
    assert record["rows"][0]["metric"] == "top1" and record["rows"][0]["samples"] == 8
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| finetune simclr, epochs 3, train batch 4, lr 0.2 | photos, 50 % of labels | tiny | top1 |" in table


def test_a_number_of_labels_is_drawn_before_a_fraction_of_them(photos, run):
    def sizes(**options):
        dataset = Finetune((str(run),), photos, **options).read_data()
        return {name: len(split) for name, split in dataset.splits.items()}

    assert sizes(labelled=10) == {"train": 10, "test": 8} and sizes(limit=6) == {"train": 6, "test": 6}
    assert sizes(labelled=10, fraction=0.6)["train"] == 6


def test_epochs_are_simclrs_for_few_and_for_more_labels(photos):
    def epochs(**options):
        return Finetune(("x",), photos, **options).numbers()["epochs"]

    assert [epochs(fraction=f) for f in (0.01, 0.1, 1.0)] == [60, 30, 30] and epochs(preset="mae") == 100
    assert epochs(fraction=0.01, epochs=7) == 7
    peak = PRESETS["simclr"].optim.lr * PRESETS["simclr"].batch_size / 256
    assert peak == pytest.approx(0.8)


def test_a_stopped_run_resumes_to_the_same_weights_bit_by_bit(finetune, tmp_path, monkeypatch):
    options = ("--preset", "mae", "--layer-decay", 0.7)
    assert finetune(*options, "--run", tmp_path / "whole") == 0
    step, stops = Finetuning.step, iter([True])

    def interrupted(self, crops):
        if crops.step == 3 and next(stops, False):
            raise KeyboardInterrupt
        return step(self, crops)

    monkeypatch.setattr(Finetuning, "step", interrupted)
    monkeypatch.setattr(training_loop.Checkpoints, "due", lambda self: True)
    again = (*options, "--run", tmp_path / "again")
    assert finetune(*again) == 130 and newest(tmp_path / "again")[0] == 3
    assert finetune(*again) == 0
    (_, expected), (end, state) = newest(tmp_path / "whole"), newest(tmp_path / "again")
    assert end == 6 and state["learner"].keys() == expected["learner"].keys()
    assert all(torch.equal(value, expected["learner"][name]) for name, value in state["learner"].items())
    moments = zip(state["optimizer"]["state"].values(), expected["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in moments)
    results = [json.loads(path.read_text())["rows"] for path in (tmp_path / "out").glob("*.json")]
    assert len(results) == 1  # the same evaluation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "simclrv2"), "--preset"),
        (("--resplit",), "--resplit draws a validation split, and fine-tuning chooses nothing on one: leave it out"),
        (("--fraction", 0), "--fraction must be above 0 and at most 1, got 0"),
        (("--fraction", 1.5), "at most 1, got 1.5"),
        (
            ("--fraction", 0.01),
            "leaves class chelsea of photos without a photo, it has 8 (and 1 more classes): pass --fr",
        ),
        (("--fraction", 0.5, "--subset", "x.txt"), "both choose the training photos"),
        (("--subset", "x.txt", "--epochs", 0), "--subset needs --epochs: pass --epochs 60 for about 1 % of the photos"),
        (("--subset", "x.txt"), "--subset x.txt cannot be read"),
        (("--layer-decay", 0), "--layer-decay must be above 0 and at most 1, got 0: pass --layer-decay 0.75"),
        (("--label-smoothing", 1), "--label-smoothing must be in [0, 1), got 1"),
        (("--lr", -1), "--lr must be at least 0, got -1"),
        (("--accumulate", 3), "--accumulate 3 must divide the 8 photos of a process: pass --accumulate 1"),
        (("--train-batch", 32), "--train-batch 32 is larger than the 16 training photos"),
        (("--train-batch", 4, "--accumulate", 4), "batch norm needs at least two: pass --train-batch 8"),
        (("--lr", 1e30), "the loss is NaN or Inf at step 2: pass a lower --lr"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(finetune, capsys, options, message):
    assert finetune(*options) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_folder_of_another_fraction_is_refused(finetune, tmp_path, capsys):
    assert finetune("--run", tmp_path / "run") == 0
    assert finetune("--run", tmp_path / "run", "--fraction", 0.5) == 2
    assert "holds an evaluation with --" in capsys.readouterr().err


def test_fine_tuning_leaves_the_run_as_it_was(finetune, run):
    before = copy.deepcopy(load_encoder(str(run)).module.state_dict())
    assert finetune() == 0
    assert all(torch.equal(value, before[name]) for name, value in load_encoder(str(run)).module.state_dict().items())
