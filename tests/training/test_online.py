"""The check during training: classes of `--data.val` that are numbered otherwise, and what it needs."""

import json
import shutil

import numpy as np
import pytest
import tiny_runs
import torch

from fastaugself import Data, Log, Pretrain, Supervised
from fastaugself.cli.pretrain import main, parse
from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.sidecar import Sidecar, read
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.divide import cut_by_class
from fastaugself.data.inputs.convert import write_beton
from fastaugself.errors import UsageError
from fastaugself.evaluation import protocols
from fastaugself.evaluation.splits import Arrays, Split
from fastaugself.evaluation.splits import Dataset as EvaluationData
from fastaugself.probes.extract import evaluating
from fastaugself.probes.knn import knn_accuracy, knn_predict
from fastaugself.probes.lidar import lidar
from fastaugself.probes.rankme import rankme
from fastaugself.probes.ridge import ridge_accuracy
from fastaugself.report.compare import report_runs
from fastaugself.runs.build import build_learner
from fastaugself.training import online
from fastaugself.training.prepare import prepare_data
from fastaugself_kernels import augment, sample_params

KEPT = ("chelsea", "coffee", "rocket")  # the first class of the training photos is missing


def photos_of(folder, out, *classes):
    for name in classes:
        shutil.copytree(folder / name, out / name)
    return out


def relabelled(source, out, order):
    """The photos of a file with the classes in another order."""
    with Beton(source) as beton, BetonWriter(out, len(beton)) as writer:
        names = read(beton).classes
        new = [names[i] for i in order]
        for i in range(len(beton)):
            writer.add(bytes(beton.read(i)), new.index(names[beton.labels_N[i]]))
        writer.sidecar = Sidecar(classes=new)
    return out


def checks(beton, val, run, labelled=True, **changes):
    data = Data(train=beton, val=val, source="native", workers=1)
    tiny_runs.train(tiny_runs.config(beton, run, data=data, max_steps=1, **changes))
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return [(line["knn"], line["linear"]) for line in lines if labelled or "knn" in line]


@pytest.fixture(scope="module")
def numbered_alike(photo_folder, beton, tmp_path_factory):
    """Photos of three classes with the numbers of the training photos, and their checks."""
    root = tmp_path_factory.mktemp("alike")
    (photos_of(photo_folder, root / "photos", *KEPT) / "astronaut").mkdir()  # an empty folder is a class
    write_beton(root / "photos", root / "val.beton", progress=False)
    return root / "val.beton", checks(beton, root / "val.beton", root / "run")


def test_a_class_that_is_missing_or_another_order_does_not_change_the_check(
    photo_folder, beton, numbered_alike, tmp_path
):
    alike, expected = numbered_alike
    assert max(max(pair) for pair in expected) > 0.5  # so that other numbers would be seen
    write_beton(photos_of(photo_folder, tmp_path / "photos", *KEPT), tmp_path / "missing.beton", progress=False)
    assert checks(beton, tmp_path / "missing.beton", tmp_path / "a") == expected
    assert checks(beton, relabelled(alike, tmp_path / "permuted.beton", (2, 3, 0, 1)), tmp_path / "b") == expected


def test_other_classes_are_refused_before_the_run_folder_is_opened(photo_folder, beton, tmp_path, capsys):
    shutil.copytree(photo_folder / "rocket", tmp_path / "photos" / "Rakete")
    write_beton(tmp_path / "photos", tmp_path / "val.beton", progress=False)
    data = Data(train=beton, val=tmp_path / "val.beton", source="native", workers=1)
    configuration = tiny_runs.config(beton, tmp_path / "run", data=data)
    assert main(lambda: configuration, {}, []) == 2
    assert "has photos of classes that --data.train" in (said := capsys.readouterr().err) and "lacks (Rakete; " in said
    assert not (tmp_path / "run" / "config.json").exists()
    assert main(lambda: configuration, {}, ["--dry-run"]) == 2 and "Rakete" in capsys.readouterr().err


def test_labels_may_be_any_numbers():
    random = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 8, generator=random), torch.randn(12, 8, generator=random)
    labels, truth = torch.randint(3, (40,), generator=random), torch.randint(3, (12,), generator=random)
    large = torch.tensor([5, 70_000, 999_999_999_999])
    assert knn_accuracy(bank, large[labels], queries, large[truth]) == knn_accuracy(bank, labels, queries, truth)
    assert torch.equal(knn_predict(bank, large[labels], queries), large[knn_predict(bank, labels, queries)])
    assert ridge_accuracy(bank, large[labels], queries, large[truth]) == ridge_accuracy(bank, labels, queries, truth)


def written(source, out, labels, classes=()):
    """The first photos of a file with these labels."""
    with Beton(source) as beton, BetonWriter(out, len(labels)) as writer:
        for i, label in enumerate(labels):
            writer.add(bytes(beton.read(i)), label)
        writer.sidecar = Sidecar(classes=list(classes))
    return out


def test_supervised_training_names_photos_without_a_label(beton, tmp_path, capsys):
    part = written(beton, tmp_path / "part.beton", [0, 1] * 20 + [-1, 0, -1])
    options = ["--data.train", str(part), "--batch-size", "16", "--device", "cpu", "--run", str(tmp_path / "run")]
    options += ["--view.size", "16", "--backbone.name", "resnet18", "--backbone.width", "8", "--augment.blur-kernel=5"]
    for more in ([], ["--dry-run"]):
        assert main(lambda: Pretrain(method=Supervised()), {}, [*options, *more]) == 2
        error = capsys.readouterr().err
        assert "2 of 43 have none, the first is" in error and "part.beton: sample 40;" in error, error
    assert not (tmp_path / "run" / "config.json").exists()


def test_supervised_training_and_the_check_take_labels_of_any_size(beton, tmp_path):
    labels = np.array([7, 999_999_999, 2**40])[np.arange(48) % 3].tolist()
    train = written(beton, tmp_path / "train.beton", labels)
    val = written(beton, tmp_path / "val.beton", [2**40, 7] * 8)
    data = Data(train=train, val=val, source="native", workers=1)
    configuration = tiny_runs.config(train, tmp_path / "run", data=data, method=Supervised(), max_steps=2)
    trainer = tiny_runs.train(configuration)
    assert trainer.learner.method.classifier.out_features == 3
    record = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["knn"] <= 1 and 0 <= record["linear"] <= 1
    assert report_runs([tmp_path / "run"]).exists()


def watch_features(monkeypatch):
    """A list to which the checks add the features [N, D] and ids of each part: queries, then the bank."""
    seen, extract = [], online.extract

    def watched(*arguments, policies, **options):
        share = extract(*arguments, policies=policies, **options)
        if len(policies) == 1:
            seen.append((share.features_nVD[:, 0], share.ids_n))
        return share

    monkeypatch.setattr(online, "extract", watched)
    return seen


def test_photos_without_a_label_are_left_out_of_the_check_and_counted(beton, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("fastaugself.training.check_data.log.warning", lambda text, *v: warnings.append(text % v))
    names = ("astronaut", "chelsea", "coffee", "rocket")
    labels = [i // 16 for i in range(64)]
    some = written(
        beton, tmp_path / "some.beton", [-1 if i % 3 == 0 else label for i, label in enumerate(labels)], names
    )
    seen = watch_features(monkeypatch)
    found = checks(some, some, tmp_path / "run")
    (x2, ids2), (x, ids) = seen[-2:]
    y, y2, known, known2 = torch.tensor(labels)[ids], torch.tensor(labels)[ids2], ids % 3 != 0, ids2 % 3 != 0
    assert found[-1] == (
        knn_accuracy(x[known], y[known], x2[known2], y2[known2]),
        ridge_accuracy(x[known], y[known], x2[known2], y2[known2]),
    )
    assert warnings == [f"{some}: 22 of 64 photos have no label and are left out of k-NN and linear"] * 2
    assert checks(some, written(beton, tmp_path / "none.beton", [-1] * 40), tmp_path / "none", labelled=False) == []


def test_a_handful_of_photos_is_no_collapse(beton, tmp_path, monkeypatch):
    """Features of n photos have a rank of at most n."""
    warnings = []
    monkeypatch.setattr("fastaugself.training.online.log.warning", lambda text, *values: warnings.append(text % values))
    few = written(beton, tmp_path / "few.beton", [0], ("astronaut",))
    checks(beton, few, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert record["rankme"] == pytest.approx(1.0) and not warnings


# --log.check


def lines(run):
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def checked(beton, run, *check, val=None, **changes):
    """A run with these checks; its records."""
    data = Data(train=beton, val=val, source="native", workers=1)
    log = Log(every=1, tensorboard=False, check=check)
    prepared = prepare_data(tiny_runs.config(beton, run, data=data, max_steps=1, log=log, **changes), tiny_runs.ALONE)
    tiny_runs.train(prepared)
    return lines(run)


def test_a_collection_is_classified_by_itself_as_evaluation_would(beton, photo_folder, tmp_path, monkeypatch):
    """k-NN and RankMe of the check are those of the protocols on the same features and split."""
    seen = watch_features(monkeypatch)
    photos_of(photo_folder, tmp_path / "photos", "astronaut", "coffee", "rocket")
    record = checked(beton, tmp_path / "run", f"objects={tmp_path / 'photos'}")[-1]
    (x2, ids2), (x, ids) = seen[-2:]
    labels = np.repeat([0, 1, 2], 16)
    kept, held_out = cut_by_class(labels, 0.2, seed=0)
    assert sorted(ids.tolist()) == kept.tolist() and sorted(ids2.tolist()) == held_out.tolist() and len(ids2) == 9
    splits = {
        name: Split(Arrays(np.zeros((len(i), 1, 1, 3), np.uint8)), labels[i.numpy()])
        for name, i in (("train", ids), ("test", ids2))
    }
    protocol = protocols.knn(EvaluationData("objects", ("a", "c", "r"), splits), neighbors=20, temperature=0.07, seed=0)
    assert record["objects/knn"] == protocol({"train": x, "test": x2}).score.value
    assert record["objects/rankme"] == pytest.approx(rankme(torch.cat([x2, x])))
    assert record["objects/linear"] == ridge_accuracy(
        x, torch.from_numpy(labels)[ids], x2, torch.from_numpy(labels)[ids2]
    )
    assert not {"knn", "rankme"} & record.keys()  # there is no --data.val


def test_training_and_validation_folders_are_matched_by_class(beton, photo_folder, tmp_path):
    photos_of(photo_folder, tmp_path / "other" / "train", "astronaut", "coffee", "rocket")
    photos_of(photo_folder, tmp_path / "other" / "test", "coffee", "rocket")
    by_path = checked(
        beton, tmp_path / "a", f"x={tmp_path / 'other' / 'train'}:{tmp_path / 'other' / 'test'}", val=beton
    )
    by_folders = checked(beton, tmp_path / "b", f"x={tmp_path / 'other'}", val=beton)
    without = [{name: value for name, value in record.items() if name != "seconds"} for record in by_path]
    assert without == [{name: value for name, value in record.items() if name != "seconds"} for record in by_folders]
    assert by_path[0]["x/knn"] > 0.5 and {"knn", "linear", "rankme"} <= by_path[0].keys()


def test_photos_without_labels_have_only_the_scores_that_need_none(beton, photo_folder, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("fastaugself.training.check_data.log.warning", lambda text, *v: warnings.append(text % v))
    monkeypatch.setattr(online, "LIDAR_VIEWS", 2)
    for i in range(12):
        for name in ("astronaut", "chelsea", "coffee"):
            (tmp_path / "loose").mkdir(exist_ok=True)
            shutil.copy(photo_folder / name / f"{i:02d}.jpg", tmp_path / "loose" / f"{name}-{i}.jpg")
    monkeypatch.setattr(online, "FEW_PHOTOS", 9)
    record = checked(beton, tmp_path / "run", f"loose={tmp_path / 'loose'}")[-1]
    assert {name for name in record if "/" in name} == {"loose/rankme", "loose/lidar", "loose/alpha"}
    assert warnings[0].startswith("--log.check loose: ") and "no two labelled classes" in warnings[0]


def test_lidar_is_of_addressed_training_views(beton, tmp_path, monkeypatch):
    monkeypatch.setattr(online, "LIDAR_VIEWS", 3)
    monkeypatch.setattr(online, "FEW_PHOTOS", 5)
    data = Data(train=beton, val=beton, source="native", workers=1)
    config = tiny_runs.config(beton, tmp_path / "run", data=data, seed=4)
    evaluation = online.OnlineEvaluation(config, learner := build_learner(config), tiny_runs.ALONE)
    backbone = learner.method.backbone.eval().requires_grad_(False)
    found = evaluation.scores(evaluation.checks[0])
    part = evaluation.checks[0].queries
    ids = part.ids_N[: 128 // 6]
    photos = part.loader.take(ids)
    params = sample_params(photos.ids_B, photos.sizes_B2, (config.view,) * 3, seed=4, epoch=0)
    views = augment(photos.pixels, photos.offsets_B, photos.sizes_B2, params, size=16, blur_kernel=5)
    features = torch.stack([backbone(x.contiguous(memory_format=torch.channels_last)) for x in views], 1)
    assert found["lidar"] == pytest.approx(lidar(features), rel=1e-3) and len(ids) == 21
    evaluation.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("photos/flowers",), "must be NAME=PATH or NAME=TRAIN:VAL, .* pass --log.check flowers=photos/flowers"),
        (("a b=photos",), "pass --log.check photos=photos"),
        (("=x.beton",), "pass --log.check x=x.beton"),
        (("a=",), "pass --log.check photos=photos/"),
        (("a=x", "a=y"), "--log.check a is given twice; pass --log.check a2=y"),
    ],
)
def test_checks_that_cannot_be_read_are_refused_with_what_to_pass(values, message):
    with pytest.raises(UsageError, match=message) as error:
        Log(check=values)
    Log(check=(values[0], *str(error.value).split("pass --log.check ")[1:])[-len(values) :])


def test_checks_are_repeatable_and_missing_photos_are_refused_before_training(beton, tmp_path, capsys):
    options = ["--log.check", f"one={beton}", "--log.check", f"two={tmp_path / 'missing.beton'}"]
    config = parse(lambda: tiny_runs.config(beton, tmp_path / "run"), {}, options)
    assert [str(photos) for photos in config.log.check_photos] == options[1::2]
    assert main(lambda: tiny_runs.config(beton, tmp_path / "run"), {}, options) == 2
    assert "missing.beton: no such file or folder" in capsys.readouterr().err
    assert main(lambda: tiny_runs.config(beton, tmp_path / "run"), {}, [*options, "--dry-run"]) == 2
    assert "missing.beton: no such" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


def test_classes_of_a_check_that_cannot_be_matched_name_its_option(beton, photo_folder, tmp_path, capsys):
    photos_of(photo_folder, tmp_path / "train", "astronaut", "coffee")
    photos_of(photo_folder, tmp_path / "val", "coffee", "rocket")
    options = ["--log.check", f"two={tmp_path / 'train'}:{tmp_path / 'val'}"]
    for more in ([], ["--dry-run"]):
        assert main(lambda: tiny_runs.config(beton, tmp_path / "run"), {}, [*options, *more]) == 2
        assert "--log.check two VAL" in (error := capsys.readouterr().err) and "lacks (rocket; " in error, error


def test_a_check_computes_in_float32_whatever_training_uses():
    before = torch.get_float32_matmul_precision()
    backbone = torch.nn.BatchNorm1d(3).train()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(ZeroDivisionError), evaluating(backbone):
            assert torch.get_float32_matmul_precision() == "highest" and not backbone.training
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "medium" and backbone.training
    finally:
        torch.set_float32_matmul_precision(before)
