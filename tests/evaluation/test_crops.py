"""Random crops of a split's photos for training: addressed draws, order, shares of processes, and .beton files."""

import dataclasses

import numpy as np
import pytest
import torch

from fastaugself.data.beton.format import Beton
from fastaugself.data.inputs.convert import write_beton
from fastaugself.distributed import World
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.crops import TrainingCrops, policy
from fastaugself.evaluation.datasets import read_dataset
from fastaugself.evaluation.splits import with_val
from fastaugself_kernels import augment, collate_images, sample_params

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)
ALONE = World.single()


@pytest.fixture
def split(photos):
    return read_dataset(photos).splits["train"]


@pytest.fixture
def beton_folder(photos, tmp_path):
    """The photos as train.beton and val.beton in one folder."""
    (tmp_path / "betons").mkdir()
    for split, name in (("train", "train"), ("test", "val")):
        write_beton(photos / split, tmp_path / "betons" / f"{name}.beton", progress=False)
    return tmp_path / "betons"


def crops(split, world=ALONE, *, batch_size=6, forward=4, **options):
    return TrainingCrops(split, world, batch_size, forward, 12, MEAN, STD, seed=3, workers=2, **options)


def same_photos(a, b):
    """Whether the pixels are equal up to the rounding of different JPEG decoders: of the file, and of Pillow."""
    levels = (a - b).abs() * torch.tensor(STD)[:, None, None] * 255
    return float(levels.max()) < 12 and float(levels.mean()) < 1.5


def by_step(found):
    """Ids, labels and crops of each step, whatever the forward passes were."""
    steps = {}
    for part in found:
        steps.setdefault(part.step, []).append(part)
    return {
        step: (
            torch.cat([p.ids_B for p in parts]),
            torch.cat([p.labels_B for p in parts]),
            torch.cat([p.x_BCHW for p in parts]),
        )
        for step, parts in steps.items()
    }


def test_crops_are_those_of_the_kernels_reference_at_seed_epoch_and_position(split):
    found = by_step(crops(split).steps(0, 5))
    assert list(found) == [0, 1, 2, 3, 4]
    for step, (ids_B, labels_B, x_BCHW) in found.items():
        images = collate_images([(np.array(split.images.open(int(i))), int(split.labels_N[i]), int(i)) for i in ids_B])
        params_VBP = sample_params(ids_B, images.sizes_B2, (policy(12),), seed=3, epoch=step // 2)
        expected = augment(*images[:3], params_VBP, size=12, mean=MEAN, std=STD, blur_kernel=1, backend="reference")
        torch.testing.assert_close(x_BCHW, expected[0], rtol=0, atol=1 / 255 / 0.1 * 1.01)  # a rounded value at most
        assert torch.equal(labels_B, images.labels_B)


def test_an_epoch_has_every_photo_at_most_once_and_epochs_differ(split):
    found = by_step(crops(split, batch_size=8).steps(0, 4))
    epochs = [torch.cat([found[step][0] for step in steps]).tolist() for steps in ((0, 1), (2, 3))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(16)) and epochs[0] != epochs[1]
    assert not torch.equal(found[0][2], found[2][2])


def test_forward_passes_divide_a_batch_and_the_last_one_says_so(split):
    parts = [(p.step, len(p.ids_B), p.last) for p in crops(split, batch_size=7, forward=3).steps(0, 2)]
    assert parts == [(0, 3, False), (0, 3, False), (0, 1, True), (1, 3, False), (1, 3, False), (1, 1, True)]


def test_two_processes_have_the_halves_of_one_processs_batches_and_resuming_changes_nothing(split):
    whole = by_step(crops(split).steps(0, 5))
    halves = [by_step(crops(split, World(rank, 2, torch.device("cpu")), forward=2).steps(0, 5)) for rank in (0, 1)]
    late = by_step(crops(split).steps(3, 5))
    for step, (ids_B, labels_B, x_BCHW) in whole.items():
        both = [torch.cat(parts) for parts in zip(halves[0][step], halves[1][step], strict=True)]
        assert torch.equal(both[0], ids_B) and torch.equal(both[1], labels_B) and torch.equal(both[2], x_BCHW)
    assert all(torch.equal(a, b) for step in (3, 4) for a, b in zip(late[step], whole[step], strict=True))


def test_beton_files_give_the_crops_of_the_folder(photos, beton_folder):
    dataset = read_dataset(beton_folder)
    assert dataset.classes == ("chelsea", "coffee") and {n: len(s) for n, s in dataset.splits.items()} == {
        "train": 16,
        "test": 8,
    }
    expected = by_step(crops(read_dataset(photos).splits["train"]).steps(0, 3))
    for step, (ids_B, labels_B, x_BCHW) in by_step(crops(dataset.splits["train"]).steps(0, 3)).items():
        assert torch.equal(ids_B, expected[step][0]) and torch.equal(labels_B, expected[step][1])
        assert same_photos(x_BCHW, expected[step][2])


def test_parts_of_beton_files_and_their_union_have_the_right_photos(beton_folder):
    dataset = with_val(read_dataset(beton_folder), seed=0, fraction=0.3)
    assert len(dataset.splits["val"]) == 4
    joined = dataset.splits["val"].join(dataset.splits["test"])
    mixed = joined.take(np.array([9, 0, 5, 3, 11, 2]))  # alternately of both files
    (ids_B, labels_B, x_BCHW) = by_step(crops(mixed, batch_size=6).steps(0, 1))[0]
    for i, label, x_CHW in zip(ids_B.tolist(), labels_B, x_BCHW, strict=True):
        images = collate_images([(np.array(mixed.images.open(i)), int(label), i)])
        params_VBP = sample_params(torch.tensor([i]), images.sizes_B2, (policy(12),), seed=3, epoch=0)
        expected = augment(*images[:3], params_VBP, size=12, mean=MEAN, std=STD, blur_kernel=1)
        assert same_photos(x_CHW, expected[0, 0])
        assert label == mixed.labels_N[i]


def test_a_photo_that_cannot_be_decoded_ends_the_training(beton_folder):
    with Beton(beton_folder / "train.beton") as beton:
        start, length = int(beton.pointers_N[5]), int(beton.bytes_N[5])
    with open(beton_folder / "train.beton", "r+b") as file:
        file.seek(start + 2)
        file.write(bytes(length - 2))
    split = read_dataset(beton_folder).splits["train"]
    with pytest.raises(RunError, match=r"train\.beton has a photo that cannot be decoded, .* write it again"):
        list(crops(split, batch_size=8).steps(0, 4))


def test_classes_of_beton_files_are_matched_by_name(photos, tmp_path):
    (photos / "test" / "apple").mkdir()
    (tmp_path / "b").mkdir()
    for split, name in (("train", "train"), ("test", "test")):
        write_beton(photos / split, tmp_path / "b" / f"{name}.beton", progress=False)
    assert read_dataset(tmp_path / "b").splits["test"].labels_N.tolist() == [0] * 4 + [1] * 4  # `apple` has no photo
    (photos / "test" / "apple" / "1.jpg").write_bytes((photos / "test" / "coffee" / "8.jpg").read_bytes())
    write_beton(photos / "test", tmp_path / "b" / "test.beton", progress=False, overwrite=True)
    with pytest.raises(UsageError, match=r"test\.beton has photos of class apple, which .*train\.beton lacks"):
        read_dataset(tmp_path / "b")
    (tmp_path / "b" / "test.beton").unlink()
    with pytest.raises(UsageError, match=r"has train\.beton: expected train\.beton and test\.beton"):
        read_dataset(tmp_path / "b")


@pytest.mark.parametrize(
    ("batch_size", "processes", "message"),
    [
        (17, 1, "--train-batch 17 is larger than the 16 training photos: pass --train-batch 16 or less"),
        (7, 2, "--train-batch 7 must be a multiple of the number of processes 2: pass --train-batch 8"),
        (18, 3, "larger than the 16 training photos: pass --train-batch 15 or less"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(split, batch_size, processes, message):
    world = dataclasses.replace(ALONE, size=processes)
    with pytest.raises(UsageError, match=message):
        crops(split, world, batch_size=batch_size)
