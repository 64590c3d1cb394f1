"""Class folders and splits: which folders are classes, which are splits, and what may be either."""

import numpy as np
import pytest
from trees import photo, text

from fastaugself.errors import UsageError
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.datasets.folders import read_targets
from fastaugself.evaluation.splits import require_classes


def folders_of(root, *names):
    for name in names:
        for i in range(6):
            photo(root / name / f"{i}.png", 20 * i)
    return read_dataset(root)


@pytest.mark.parametrize(
    "names", [("apple", "train"), ("cat", "test", "train"), ("bus", "train", "val"), ("Train", "a", "Test", "valid")]
)
def test_classes_may_be_called_like_splits(names, tmp_path):
    dataset = folders_of(tmp_path, *names)
    assert dataset.classes == tuple(sorted(names)) and dataset.how.startswith("64/16/20 %")
    assert np.bincount(dataset.splits["all"].labels_N).tolist() == [6] * len(names)
    require_classes(dataset, ("train", "test"))


def test_a_class_called_train_may_hold_folders(tmp_path):
    assert folders_of(tmp_path, "bus", "train/steam", "train/electric").classes == ("bus", "train")


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "VAL"), ("training", "validation", "testing")])
def test_folders_that_are_all_splits_are_splits(names, tmp_path):
    dataset = folders_of(tmp_path, *(f"{name}/{kind}" for name in names for kind in ("cat", "dog")))
    assert dataset.classes == ("cat", "dog") and {"train", "test"} <= dataset.splits.keys()
    assert all(len(split) == 12 for split in dataset.splits.values())


def test_folders_without_photos_beside_splits_are_no_classes(tmp_path):
    text(tmp_path / "annotations" / "boxes.txt", "1 2 3 4")
    (tmp_path / ".cache").mkdir()
    dataset = folders_of(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    assert dataset.classes == ("cat", "dog") and dataset.how == "folders train, test"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train/cat", "test/cat", "extra/more"),
            "holds extra next to train, test, so it may be a class or the others",
        ),
        (("train/cat", "val/cat", "valid/cat"), "has both val and valid: remove or rename one"),
        (("train/cat", "train/dog"), "has train but not both train and test"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(names, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        folders_of(tmp_path, *names)


def test_a_split_that_is_a_link_to_another_is_refused(tmp_path):
    for name in ("cat", "dog"):
        photo(tmp_path / "train" / name / "0.png")
    (tmp_path / "test").symlink_to("train")
    with pytest.raises(UsageError, match=r"test is the same folder as .*train: remove one of the two"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_targets_may_start_with_a_byte_order_mark(mark, tmp_path):
    for i in range(3):
        photo(tmp_path / "all" / f"{i}.png", i)
    (tmp_path / "all" / "targets.csv").write_bytes(mark + b"file,x\r\n2.png,7\r\n0.png,5\r\n1.png,6\r\n")
    values, names = read_targets(tmp_path / "all" / "targets.csv", ["0.png", "1.png", "2.png"])
    assert (values.tolist(), names) == ([[5], [6], [7]], ("x",))
    (tmp_path / "all" / "targets.csv").write_bytes(mark + b"file;x\r\n2.png;7\r\n")
    with pytest.raises(UsageError, match="separated by commas, got \\['file;x'\\]"):
        read_targets(tmp_path / "all" / "targets.csv", ["2.png"])
    (tmp_path / "all" / "targets.csv").write_bytes("file,x".encode("utf-16"))
    with pytest.raises(UsageError, match="UTF-16 text: save it as UTF-8"):
        read_targets(tmp_path / "all" / "targets.csv", ["2.png"])
