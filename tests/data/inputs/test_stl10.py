"""STL10's binary files and lists of classes, from disk to `.beton`."""

import numpy as np
import pytest

from fastaugself.data.beton.format import Beton
from fastaugself.data.beton.sidecar import read as read_sidecar
from fastaugself.data.inputs import open_samples
from fastaugself.data.inputs.convert import ensure_beton, write_beton
from fastaugself.data.inputs.samples import Columns
from fastaugself.data.inputs.subset import LISTS, read_classes
from fastaugself.errors import RunError, UsageError
from fastaugself.report.samples import read_stored

NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


@pytest.fixture
def stl10(tmp_path):
    """A folder in the published format, with 3 + 2 + 4 photos whose pixel values encode their positions."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    random, photos = np.random.default_rng(0), {}
    for split, count in (("train", 3), ("test", 2), ("unlabeled", 4)):
        images = random.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        # Pixel by pixel in the published layout: channel, then column, then row, which varies fastest.
        data = bytes(image[row, column, c] for image in images for c in range(3)
                     for column in range(96) for row in range(96))  # fmt: skip
        (folder / f"{split}_X.bin").write_bytes(data)
        photos[split] = images
    (folder / "train_y.bin").write_bytes(bytes([2, 10, 1]))
    (folder / "test_y.bin").write_bytes(bytes([1, 3]))
    (folder / "class_names.txt").write_text("\n".join(NAMES) + "\n")
    return folder, photos


def written(path):
    with Beton(path) as beton:
        pixels = [read_stored(beton, i).numpy() for i in range(beton.num_samples)]
        return pixels, beton.labels_N.tolist(), read_sidecar(beton).classes


def test_the_folder_gives_the_photos_for_pretraining(stl10, tmp_path):
    folder, photos = stl10
    out = tmp_path / "train.beton"
    report = write_beton(folder, out, progress=False)
    pixels, labels, classes = written(out)
    assert labels == [1, 9, 0, -1, -1, -1, -1] and classes == NAMES
    expected = [*photos["train"], *photos["unlabeled"]]
    assert all(np.array_equal(a, b) for a, b in zip(pixels, expected, strict=True))
    assert report.samples == report.passed_through == 7  # stored raw, without JPEG


def test_a_file_is_its_split(stl10, tmp_path):
    folder, photos = stl10
    out = tmp_path / "test.beton"
    write_beton(folder / "test_X.bin", out, progress=False)
    pixels, labels, classes = written(out)
    assert labels == [0, 2] and classes == NAMES
    assert all(np.array_equal(a, b) for a, b in zip(pixels, photos["test"], strict=True))
    assert open_samples(folder / "train_X.bin", Columns(label="none")).count == 3
    assert [s.label for s in open_samples(folder / "unlabeled_X.bin").samples(2)] == [-1, -1]


def test_a_recipe_takes_the_folder_itself(stl10):
    folder, _ = stl10
    beton = ensure_beton(folder, progress=False)
    assert beton == folder.with_name("stl10_binary.beton") and written(beton)[1] == [1, 9, 0, -1, -1, -1, -1]


def test_broken_downloads_are_named(stl10):
    folder, _ = stl10
    (folder / "train_y.bin").write_bytes(bytes([2, 11, 1]))
    with pytest.raises(RunError, match=r"train_y.bin holds 3 labels from 1 to 11, expected 3 from 1 to 10"):
        open_samples(folder)
    (folder / "train_y.bin").unlink()
    with pytest.raises(UsageError, match="--label-column none"):
        open_samples(folder)
    (folder / "unlabeled_X.bin").write_bytes(b"x" * 1000)
    with pytest.raises(RunError, match=r"unlabeled_X.bin has 1000 bytes, not a multiple of the 27648"):
        open_samples(folder / "unlabeled_X.bin")


def test_classes_of_a_list_are_renumbered(photo_folder, tmp_path):
    names = tmp_path / "two.txt"
    names.write_text("rocket\nchelsea\n")
    report = write_beton(photo_folder, tmp_path / "two.beton", classes=str(names), progress=False)
    pixels, labels, classes = written(tmp_path / "two.beton")
    assert report.samples == 32 and classes == ["chelsea", "rocket"] and labels == [0] * 16 + [1] * 16
    write_beton(photo_folder / "rocket", tmp_path / "rocket.beton", progress=False)
    assert all(np.array_equal(a, b) for a, b in zip(pixels[16:], written(tmp_path / "rocket.beton")[0], strict=True))


def test_imagenet100_is_the_published_list(photo_folder, tmp_path):
    names = read_classes("imagenet100")
    assert len(set(names)) == 100 and names == sorted(names)
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names)
    # The first and last of the published file, which is not sorted, and the ends of the alphabet.
    assert {"n02869837", "n02090622", "n01558993", "n13040303"} <= set(names)
    assert LISTS["imagenet100"].exists()
    with pytest.raises(UsageError, match=r"lacks 100 of the 100 classes of --classes \(n01558993, ...\)"):
        write_beton(photo_folder, tmp_path / "x.beton", classes="imagenet100", progress=False)


@pytest.mark.parametrize(("text", "message"), [("a\na\n", "a occurs twice"), ("\n", "the file is empty")])
def test_invalid_class_lists_are_refused(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_classes(str(path))
    with pytest.raises(UsageError, match="imagenet10 is neither imagenet100 nor a readable file"):
        read_classes("imagenet10")
