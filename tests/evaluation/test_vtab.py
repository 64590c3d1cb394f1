"""Readers of VTAB's data sets and of 3DIEBench: classes by hand, images in their containers, splits without leaks."""

import numpy as np
import pytest
from trees import text
from vtab_trees import VTAB, bench3d, dmlab, example, kitti, norb_matrix, record, smallnorb

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.datasets import read_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set by name, read from its tree, which is made once."""
    made = {}

    def get(name):
        maker = VTAB[name][0]
        if maker not in made:
            made[maker] = tmp_path_factory.mktemp("vtab") / "root"
            maker(made[maker])
        return read_dataset(made[maker], name)

    return get


def everything(dataset):
    """(image, label) of all splits."""
    found = []
    for name in ("train", "val", "test"):
        split = dataset.splits[name]
        found += [(split.images.open(i), int(label)) for i, label in enumerate(split.labels_N)]
    return found


def test_svhns_ten_is_the_digit_zero(data):
    for image, label in everything(data("svhn")):
        assert label == (image.getpixel((7, 5))[1] + 1) % 10
    assert data("svhn").classes == tuple("0123456789")


@pytest.mark.parametrize(("name", "each"), [("eurosat", (6, 2, 2)), ("resisc45", (6, 2, 2))])
def test_splits_of_class_folders_have_all_classes_and_no_image_twice(data, name, each):
    splits = [data(name).splits[split] for split in ("train", "val", "test")]
    for split, count in zip(splits, each, strict=True):
        assert set(np.bincount(split.labels_N).tolist()) == {count}
    names = [name for split in splits for name in split.names]
    assert len(set(names)) == len(names) == 10 * len(data(name).classes)


def test_patches_are_read_from_hdf5(data):
    split = data("patch-camelyon").splits["test"]
    assert [split.images.open(i).getpixel((4, 3))[2] for i in range(5)] == [100, 101, 102, 103, 104]
    assert split.labels_N.tolist() == [0, 1, 0, 1, 0] and split.take(np.array([3])).images.open(0).size == (96, 96)


def test_retinopathys_solution_is_divided_by_usage(data):
    dataset = data("retinopathy")
    assert dataset.splits["val"].names == ["test/0_right.jpeg", "test/1_right.jpeg"]
    assert dataset.splits["test"].labels_N.tolist() == [2, 1, 0, 4] and dataset.splits["train"].labels_N[3] == 3


def test_clevrs_objects_are_counted_and_the_nearest_is_binned(data):
    count, distance = data("clevr-count"), data("clevr-distance")
    assert count.classes[0] == "3 objects" and len(count.classes) == 8 and len(distance.classes) == 6
    for split in ("train", "val", "test"):
        for name, counted, binned in zip(
            count.splits[split].names, count.splits[split].labels_N, distance.splits[split].labels_N, strict=True
        ):
            i = int(name[-10:-4])
            assert counted == i % 8
            z = 7.9 + 0.5 * i
            expected = 0 if z <= 8 else 1 if z <= 8.5 else 2 if z <= 9 else 3 if z <= 9.5 else 4 if z <= 10 else 5
            assert binned == expected
    assert distance.classes[2] == "up to 9"


def test_records_of_tensorflow_are_read_without_it(data):
    split = data("dmlab").splits["train"]
    assert split.labels_N.tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert [split.images.open(i).size for i in range(7)] == [(9 + i, 8) for i in range(7)]
    assert split.images.open(3).getpixel((0, 0)) == (3, 50, 7)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "is cut or damaged at byte"),
        (lambda data: data + b"\x01\x02", "is cut or damaged at byte"),
        (lambda data: data + record(b"\x0a\x02\x0a\x00"), "has no image and label"),
        (lambda data: data + record(example(b"", 0).replace(b"label", b"lebal")), "has no image and label"),
    ],
)
def test_damaged_records_are_refused_with_their_place(tmp_path, damage, message):
    dmlab(tmp_path / "root")
    path = tmp_path / "root" / "dmlab-test.tfrecord"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=rf"dmlab-test.tfrecord.* {message}"):
        read_dataset(tmp_path / "root", "dmlab")


def test_kittis_vehicles_are_binned_and_recordings_are_not_divided(data):
    dataset = data("kitti-distance")
    drives = {}
    for split in ("train", "val", "test"):
        for name, label in zip(dataset.splits[split].names, dataset.splits[split].labels_N, strict=True):
            i = int(name[-10:-4])
            assert label == (3 if i >= 15 else 0 if 3 * i <= 8 else 1 if 3 * i <= 20 else 2), i
            drives.setdefault((19 - i) // 2, set()).add(split)
    assert len(drives) == 10 and all(len(splits) == 1 for splits in drives.values())


def test_the_devkit_may_stand_in_its_folder_and_must_map_all_images(tmp_path):
    kitti(tmp_path / "root")
    (tmp_path / "root" / "devkit").mkdir()
    (tmp_path / "root" / "mapping").rename(tmp_path / "root" / "devkit" / "mapping")
    assert len(read_dataset(tmp_path / "root", "kitti-distance").splits["train"]) == 16
    text(tmp_path / "root" / "devkit" / "mapping" / "train_rand.txt", "1,2,3")
    with pytest.raises(RunError, match="does not map all images to their drives"):
        read_dataset(tmp_path / "root", "kitti-distance")


def test_dsprites_positions_and_angles_are_in_sixteen_bins(data):
    for image, label in everything(data("dsprites-location")):
        column = next(x for x in range(64) if image.getpixel((x, 10)) == (255, 255, 255))
        assert label == column % 32 // 2
    for image, label in everything(data("dsprites-orientation")):
        column = next(x for x in range(64) if image.getpixel((x, 10)) == (255, 255, 255))
        assert label == int(column / 2.5)


def test_norbs_first_camera_with_its_angles(data):
    azimuth, elevation = everything(data("smallnorb-azimuth")), everything(data("smallnorb-elevation"))
    for (image, a), (_, b) in zip(azimuth, elevation, strict=True):
        i = image.getpixel((6, 5))[0]
        assert a == i % 18 and b == i % 9 and image.getpixel((0, 0)) == (0, 0, 0)
    assert data("smallnorb-azimuth").classes[17] == "340 degrees"
    assert data("smallnorb-elevation").classes == tuple(f"{angle} degrees" for angle in range(30, 75, 5))


def test_norb_of_another_kind_is_refused(tmp_path):
    smallnorb(tmp_path / "root")
    path = tmp_path / "root" / "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat"
    path.write_bytes(norb_matrix(np.zeros((2, 2), np.int32))[:-1])
    with pytest.raises(RunError, match="cannot be read as a matrix of NORB"):
        read_dataset(tmp_path / "root", "smallnorb-azimuth")


def test_objects_of_3diebench_are_in_one_split_with_their_pose(data):
    dataset = data("3diebench-pose")
    seen = {}
    for name, split in dataset.splits.items():
        for path, target in zip(split.names, split.targets_NT, strict=True):
            synset, item, image = path.split("/")
            seen.setdefault((synset, item), set()).add(name)
            assert target[0] == 100 * int(item, 16) + 10 * int(image[6]) and target[6] - target[0] == 6
    assert len(seen) == 20 and all(len(splits) == 1 for splits in seen.values())
    assert dataset.target_names[:3] == ("yaw", "pitch", "roll") and dataset.classes == ("02691156", "04330267")


def test_official_lists_of_3diebench_are_used(tmp_path):
    bench3d(tmp_path / "root", objects=4)
    items = [f"/{c}/{k:04x}/" for c in ("02691156", "04330267") for k in range(4)]
    np.save(tmp_path / "root" / "train_images.npy", np.array(items[:6]))
    np.save(tmp_path / "root" / "val_images.npy", np.array(items[6:]))
    splits = read_dataset(tmp_path / "root", "3diebench").splits
    assert {name.rsplit("/", 1)[0] for name in splits["test"].names} == {"04330267/0002", "04330267/0003"}
    assert len(splits["train"]) == 15 and len(splits["val"]) == 3


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    VTAB["patch-camelyon"][0](tmp_path / "root")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UsageError, match="needs h5py: pip install h5py"):
        read_dataset(tmp_path / "root", "patch-camelyon")
