"""The check during training: classes of `--data.val` that are numbered otherwise, and what it needs."""

import json
import shutil

import numpy as np
import pytest
import tiny_runs
import torch

from fastaugself import Data, Pretrain, Supervised
from fastaugself.cli.pretrain import main
from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.sidecar import Sidecar, read
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.inputs.convert import write_beton
from fastaugself.probes.knn import knn_accuracy, knn_predict
from fastaugself.probes.ridge import ridge_accuracy
from fastaugself.report.compare import report_runs
from fastaugself.training import online

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


def test_photos_without_a_label_are_left_out_of_the_check_and_counted(beton, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("fastaugself.training.online.log.warning", lambda text, *values: warnings.append(text % values))
    names = ("astronaut", "chelsea", "coffee", "rocket")
    labels = [i // 16 for i in range(64)]
    some = written(
        beton, tmp_path / "some.beton", [-1 if i % 3 == 0 else label for i, label in enumerate(labels)], names
    )
    expected = []
    extract = online.extract

    def seen(*arguments, **options):
        features = extract(*arguments, **options)
        expected.append((features.features_ND, torch.tensor(labels)[features.ids_N], features.ids_N % 3 != 0))
        return features

    monkeypatch.setattr(online, "extract", seen)
    found = checks(some, some, tmp_path / "run")
    (x, y, known), (x2, y2, known2) = expected[-2:]
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
