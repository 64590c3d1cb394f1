"""Classes of data sets: labels that are no sizes, and the classes of one data set in the numbering of another."""

import numpy as np
import pytest

from fastaugself.data.beton.sidecar import Sidecar
from fastaugself.data.beton.writer import BetonWriter
from fastaugself.data.classes import Classes, match_classes
from fastaugself.data.dataset import Dataset
from fastaugself.errors import UsageError

NAMES = ("train.beton", "val.beton")


def classes(names, used=None, named=True):
    return Classes(names, list(range(len(names))) if used is None else used, named)


def numbers(count, used=None):
    return classes([str(i) for i in range(count)], used, named=False)


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (classes(["cat", "dog", "emu"]), classes(["dog", "emu"]), [1, 2]),
        (classes(["cat", "dog", "emu"]), classes(["emu", "cat", "dog"]), [2, 0, 1]),
        (classes(["cat", "dog"]), classes(["ant", "dog"], used=[1]), [-1, 1]),  # no photo is an ant
        (classes(["1", "10", "2"]), numbers(11, used=[1, 2, 10]), {1: 0, 2: 2, 10: 1}),  # folders with such names
        (numbers(3), numbers(2), [0, 1]),
        (classes(["7", "999999999"], named=False), classes(["7"], named=False), [0]),
        (classes([]), classes(["dog", "emu"]), [0, 1]),  # training photos without labels
        (classes(["cat"]), classes([]), []),
    ],
)
def test_classes_are_matched_by_name(train, val, expected):
    match = match_classes(train, val, names=NAMES)
    expected = expected if isinstance(expected, dict) else dict(enumerate(expected))
    assert {i: int(match.numbers_C[i]) for i in expected} == expected and not match.assumed


@pytest.mark.parametrize("named_side", [0, 1])
def test_a_side_without_names_is_matched_by_number_and_this_is_said(named_side):
    sides = [numbers(3, used=[0, 2]), numbers(3, used=[0, 2])]
    sides[named_side] = classes(["cat", "dog", "emu"], used=[1, 2])
    match = match_classes(*sides, names=NAMES)
    assert match.numbers_C.tolist() == [0, 1, 2]
    assert f"{NAMES[1 - named_side]} has no class names" in match.assumed and "2 is emu" in match.assumed


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (["cat", "dog"], ["ant", "cat"], r"lacks \(ant; .*are cat, dog\): list the classes that both have .*--classes"),
        (
            ["cat", "dog"],
            ["Katze", "Hund"],
            r"lacks \(Katze, Hund; .*: pass --data.val with photos of the same classes",
        ),
        ([f"n{i}" for i in range(9)], [f"m{i}" for i in range(7)], r"\(m0, m1, m2, m3, m4 and 2 more; .*and 4 more\)"),
    ],
)
def test_photos_of_other_classes_are_refused_with_their_names(train, val, message):
    with pytest.raises(UsageError, match=message):
        match_classes(classes(train), classes(val), names=NAMES)


def test_numbers_without_a_class_are_refused():
    with pytest.raises(UsageError, match=r"lacks \(0, 3; "):
        match_classes(classes(["cat", "dog"]), numbers(4, used=[0, 3]), names=NAMES)


@pytest.mark.parametrize(
    ("stored", "names", "expected", "labels"),
    [
        ([7, 999_999_999, -1, 7], [], ["7", "999999999"], [0, 1, -1, 0]),
        ([7, 2**62], [], ["7", str(2**62)], [0, 1]),
        ([2, 0], [], ["0", "1", "2"], [2, 0]),
        ([2, 0], ["a", "b", "c", "d"], ["a", "b", "c", "d"], [2, 0]),
        ([-1, -1], [], [], [-1, -1]),
    ],
)
def test_numbers_of_labels_are_not_sizes(tmp_path, stored, names, expected, labels):
    with BetonWriter(tmp_path / "x.beton", len(stored)) as writer:
        for label in stored:
            writer.add(np.zeros((9, 9, 3), np.uint8), label)
        writer.sidecar = Sidecar(classes=names)
    with Dataset(tmp_path / "x.beton") as data:
        assert data.classes == expected and data.labels_N.tolist() == labels
        assert data.known_classes.used == sorted({label for label in labels if label >= 0})


def written(path, labels, names):
    with BetonWriter(path, len(labels)) as writer:
        for label in labels:
            writer.add(np.zeros((9, 9, 3), np.uint8), label)
        writer.sidecar = Sidecar(classes=names)
    return path


def test_several_files_of_validation_photos_are_matched_by_name_like_one(tmp_path):
    """The second file has photos of the second class only, and neither has all classes of the training photos."""
    train = written(tmp_path / "train.beton", [0, 1, 2], ["ant", "bee", "cat"])
    val = [written(tmp_path / f"val{i}.beton", labels, ["cat", "ant"]) for i, labels in enumerate(([1, 0], [1, 1]))]
    with Dataset(train) as known, Dataset(tuple(val)) as checked:
        match = match_classes(known.known_classes, checked.known_classes, names=NAMES)
        assert match.numbers_C[checked.labels_N].tolist() == [0, 2, 0, 0] and match.assumed == ""
    other = written(tmp_path / "other.beton", [0], ["ant", "cat"])
    with pytest.raises(UsageError, match=r"val0\.beton and .*other\.beton disagree about the classes"):
        Dataset((val[0], other))
    strange = tuple(written(tmp_path / f"strange{i}.beton", [i], ["cat", "dog"]) for i in range(2))
    with Dataset(train) as known, Dataset(strange) as checked, pytest.raises(UsageError, match="dog"):
        match_classes(known.known_classes, checked.known_classes, names=NAMES)
