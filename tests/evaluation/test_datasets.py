"""Readers of the papers' data sets, each on a small tree of the layout that its authors distribute."""

import os
import pickle

import numpy as np
import pytest
import torch
from trees import photo, text
from vtab_trees import VTAB

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.datasets import read_dataset, readers
from fastaugself.evaluation.splits import require_classes
from fastaugself.probes.robustness import CORRUPTIONS


def mat(path, **variables):
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def food101(root):
    for split, numbers in (("train", range(20)), ("test", range(20, 24))):
        text(root / "meta" / f"{split}.txt", *(f"{c}/{i}" for c in ("pie", "soup") for i in numbers))
        for c in ("pie", "soup"):
            for i in numbers:
                photo(root / "images" / c / f"{i}.jpg", i)


def mit67(root):
    for split, numbers in (("Train", range(9)), ("Test", range(9, 12))):
        text(root / f"{split}Images.txt", *(f"{c}/{i}.jpg" for c in ("bar", "inside_bus") for i in numbers))
        for c in ("bar", "inside_bus"):
            for i in numbers:
                photo(root / "Images" / c / f"{i}.jpg", i)


def pets(root):
    for split, numbers in (("trainval", range(1, 9)), ("test", range(9, 12))):
        names = [f"{c}_{i}" for c in ("Abyssinian", "basset_hound") for i in numbers]
        text(root / "annotations" / f"{split}.txt", *(f"{name} 1 1 1" for name in names))
        for name in names:
            photo(root / "images" / f"{name}.jpg")


def aircraft(root):
    for k, split in enumerate(("train", "val", "test")):
        names = [f"{10 * k + i:07d}" for i in range(4)]
        lines = [f"{name} {kind}" for name, kind in zip(names, ("707-320", "707-320", "A340", "A340"), strict=True)]
        text(root / "data" / f"images_variant_{split}.txt", *lines)
        for name in names:
            photo(root / "data" / "images" / f"{name}.jpg")


def dtd(root):
    for k, split in enumerate(("train", "val", "test")):
        names = [f"{c}/{c}_{10 * k + i:04d}.jpg" for c in ("banded", "woven") for i in range(3)]
        text(root / "labels" / f"{split}1.txt", *names)
        for name in names:
            photo(root / "images" / name)


def sun397(root):
    for split, numbers in (("Training", range(12)), ("Testing", range(12, 14))):
        names = [f"/{c}/sun_{i}.jpg" for c in ("a/abbey", "t/tower/clock") for i in numbers]
        text(root / f"{split}_01.txt", *names)
        for name in names:
            photo(root / name[1:])


def flowers102(root):
    for i in range(1, 13):
        photo(root / "jpg" / f"image_{i:05d}.jpg")
    mat(root / "imagelabels.mat", labels=np.array([[1, 2] * 6]))
    mat(root / "setid.mat", trnid=[[1, 2, 3, 4]], valid=[[5, 6]], tstid=[[7, 8, 9, 10, 11, 12]])


def caltech101(root):
    for c in ("BACKGROUND_Google", "ant", "wrench"):
        for i in range(33):
            photo(root / "101_ObjectCategories" / c / f"image_{i:04d}.jpg")


def cars(root):
    kind = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    mat(root / "devkit" / "cars_meta.mat", class_names=np.array(["Acura RL", "BMW M3"], dtype=object))
    for split, file, count in (("train", "cars_train_annos", 16), ("test", "cars_test_annos_withlabels", 4)):
        rows = np.array([(2, 3, 9, 8, i % 2 + 1, f"{i:05d}.jpg") for i in range(count)], dtype=kind)
        mat(root / "devkit" / f"{file}.mat", annotations=rows)
        for i in range(count):
            photo(root / f"cars_{split}" / f"{i:05d}.jpg")


def dump(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({k.encode(): v for k, v in values.items()}))


def cifar10(root):
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = np.zeros((4, 3072), np.uint8)
        data[:, 1024:2048] = k  # the green plane
        dump(root / name, data=data, labels=[0, 1, 0, 1])
    dump(root / "batches.meta", label_names=[b"airplane", b"automobile"])


def cifar100(root):
    for name, count in (("train", 20), ("test", 4)):
        data = np.zeros((count, 3072), np.uint8)
        dump(root / name, data=data, fine_labels=[i % 2 for i in range(count)], coarse_labels=[0] * count)
    dump(root / "meta", fine_label_names=[b"apple", b"bear"])


def fc100(root):
    for k, split in enumerate(("train", "val", "test")):
        data = np.full((6, 32, 32, 3), k, np.uint8)
        dump(root / f"FC100_{split}.pickle", data=data, labels=[2 * k, 2 * k + 1] * 3)


def stl10(root):
    root.mkdir(parents=True)
    for split, count in (("train", 10), ("test", 4)):
        images = np.zeros((count, 96, 96, 3), np.uint8)
        images[:, 5, 60] = (200, 100, 50)
        images.transpose(0, 3, 2, 1).tofile(root / f"{split}_X.bin")
        np.array([i % 2 + 1 for i in range(count)], np.uint8).tofile(root / f"{split}_y.bin")
    text(root / "class_names.txt", "airplane", "bird")


def plantdisease(root):
    for split in ("train", "valid"):
        for c in ("Apple___healthy", "Tomato___mold"):
            for i in range(4):
                photo(root / split / c / f"{i}.jpg")


def cub200(root):
    lines = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes", "parts/part_locs")
    }
    for i in range(1, 21):
        kind = 1 + i % 2
        name = f"00{kind}.Bird/{i}.jpg"
        photo(root / "images" / name, size=(40, 30))
        lines["images"].append(f"{i} {name}")
        lines["image_class_labels"].append(f"{i} {kind}")
        lines["train_test_split"].append(f"{i} {int(i <= 16)}")
        lines["bounding_boxes"].append(f"{i} 3.0 4.0 20.0 10.0")
        for part in range(1, 16):
            visible = int(part <= 8 or (i + part) % 3 == 0) if i != 7 else 0
            lines["parts/part_locs"].append(f"{i} {part} {part * visible}.0 {2 * part * visible}.0 {visible}")
    for name, rows in lines.items():
        text(root / f"{name}.txt", *rows)
    text(root / "classes.txt", "1 001.Bird", "2 002.Bird")


def faces300w(root):
    for folder in ("01_Indoor", "02_Outdoor"):
        for i in range(5):
            photo(root / folder / f"{i}.png", size=(80, 60))
            points = [f"{11 + k % 10} {21 + k // 10}" for k in range(68)]
            text(root / folder / f"{i}.pts", "version: 1", "n_points: 68", "{", *points, "}")


def celeba(root):
    names = [f"{i:06d}.jpg" for i in range(1, 9)]
    for name in names:
        photo(root / "img_align_celeba" / name)
    text(root / "list_eval_partition.txt", *(f"{name} {(0, 0, 0, 0, 1, 1, 2, 2)[i]}" for i, name in enumerate(names)))
    rows = [f"{name}  {' '.join(str(v) for v in range(10))}" for name in names]
    text(root / "list_landmarks_align_celeba.txt", "8", "lefteye_x lefteye_y", *rows)


def lsp(root):
    for i in range(1, 21):
        photo(root / "images" / f"im{i:04d}.jpg")
    joints = np.zeros((3, 14, 20))
    joints[0], joints[1] = 5, np.arange(14)[:, None]
    mat(root / "joints.mat", joints=joints)


def voc(root):
    root = root / "VOC2007"
    for split, numbers in (("train", (1, 2)), ("val", (3, 4)), ("test", (5, 6))):
        text(root / "ImageSets" / "Main" / f"{split}.txt", *(f"{i:06d}" for i in numbers))
        for i in numbers:
            photo(root / "JPEGImages" / f"{i:06d}.jpg")
            box = "<xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
            small = f"<object><name>dog</name><bndbox>{box}</bndbox></object>"
            large = (
                small.replace("dog", ("cat", "bus")[i % 2]).replace("<xmax>2", "<xmax>9").replace("<ymax>2", "<ymax>7")
            )
            text(root / "Annotations" / f"{i:06d}.xml", f"<annotation>{small}{large}</annotation>")


def coil100(root):
    for obj in (1, 2, 13):
        for angle in (0, 5, 10):
            photo(root / f"obj{obj}__{angle}.png")


def aloi(pattern):
    def make(root):
        for obj in (1, 20):
            for i in range(1, 4):
                photo(root / str(obj) / pattern.format(obj, i))

    return make


def by_class(*names):
    def make(root):
        for name in names:
            for i in range(3):
                photo(root / name / f"{i}.jpg")

    return make


def imagenet_c(root):
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            for c in ("n01440764", "n01443537"):
                photo(root / name / str(severity) / c / "ILSVRC2012_val_00000293.JPEG")


def imagenet_p(root):
    for name in ("gaussian_noise", "tilt"):
        for c in ("n01440764", "n01443537"):
            for i in range(3):
                photo(root / name / c / "ILSVRC2012_val_00000293" / f"{i}.png")


TREES = {
    "food101": (food101, (36, 4, 8)),
    "mit67": (mit67, (16, 2, 6)),
    "pets": (pets, (13, 3, 6)),
    "aircraft": (aircraft, (4, 4, 4)),
    "dtd": (dtd, (6, 6, 6)),
    "sun397": (sun397, (4, 20, 4)),
    "flowers102": (flowers102, (4, 2, 6)),
    "caltech101": (caltech101, (50, 10, 6)),
    "cars": (cars, (14, 2, 4)),
    "cifar10": (cifar10, (18, 2, 4)),
    "cifar100": (cifar100, (18, 2, 4)),
    "fc100": (fc100, (6, 6, 6)),
    "stl10": (stl10, (9, 1, 4)),
    "plantdisease": (plantdisease, (8, None, 8)),
    "cub200": (cub200, (6, 10, 4)),
    "cub200-parts": (cub200, (5, 10, 4)),
    "300w": (faces300w, (3, 3, 4)),
    "celeba": (celeba, (4, 2, 2)),
    "lsp": (lsp, (11, 1, 8)),
    "voc": (voc, (2, 2, 2)),
    "coil100": (coil100, None),
    "aloi-viewpoint": (aloi("{}_r{}.png"), None),
    "aloi-illumination": (aloi("{}_l{}c1.png"), None),
    "aloi-temperature": (aloi("{}_i{}.png"), None),
    "imagenet-v2": (by_class("0", "9", "10", "999"), (None, None, 12)),
    "imagenet-r": (by_class("n01443537", "n01484850"), (None, None, 6)),
    "imagenet-a": (by_class("n01498041", "n01531178"), (None, None, 6)),
    "imagenet-sketch": (by_class("sketch/n01440764", "sketch/n01443537"), (None, None, 6)),
    "imagenet-c": (imagenet_c, (None, None, None)),
    "imagenet-p": (imagenet_p, (None, None, None)),
}
TREES |= VTAB
BOXED = {"cars", "cub200", "voc"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The folder of a data set, made once."""
    made = {}

    def get(name):
        maker = TREES[name][0]
        if maker not in made:
            made[maker] = tmp_path_factory.mktemp("data") / "root"
            maker(made[maker])
        return made[maker]

    return get


def test_every_reader_has_a_tree():
    assert set(TREES) | {"folders", "beton"} == set(readers())


@pytest.mark.parametrize("name", TREES)
def test_a_data_set_is_read_with_its_splits_and_images(name, tree):
    dataset = read_dataset(tree(name), name)
    sizes = TREES[name][1]
    if sizes is None:
        assert list(dataset.splits) == ["all"] and set(np.bincount(dataset.splits["all"].labels_N)) == {3}
    else:
        found = tuple(
            len(dataset.splits[split]) if split in dataset.splits else None for split in ("train", "val", "test")
        )
        assert found == sizes
    for split in dataset.splits.values():
        image = split.images.open(len(split) - 1)
        assert image.mode == "RGB" and split.images.digest(None) == split.images.digest(None)
        assert len(split.labels_N) == len(split.images) == len(split)
        assert split.labels_N.max() < max(1, len(dataset.classes))
        if dataset.kind:
            assert split.targets_NT.shape[0] == len(split) and np.isfinite(split.targets_NT).all()
    if (
        sizes
        and sizes[1]
        and dataset.classes
        and name not in ("fc100", "voc", "stl10", "pets", "cars", "cifar10", "cifar100", *VTAB)
    ):
        require_classes(dataset, ("train", "test"))
    assert (dataset.kind == "boxes") == (name in BOXED)
    assert read_dataset(tree(name), name).splits.keys() == dataset.splits.keys()


@pytest.mark.parametrize("name", [name for name in TREES if name != "caltech101"])
def test_another_folder_is_refused_with_the_expected_layout(name, tmp_path):
    photo(tmp_path / "holiday" / "beach.jpg")
    with pytest.raises(UsageError, match=f"is not {'cub200' if name == 'cub200' else name} as expected.* expected "):
        read_dataset(tmp_path, name)


def test_another_folder_is_refused_as_caltech(tmp_path):
    photo(tmp_path / "holiday" / "beach.jpg")
    with pytest.raises(UsageError, match="it has 1 class folders; expected 101"):
        read_dataset(tmp_path, "caltech101")


def test_cifar_planes_become_pixels_and_its_split_matches_torch(tree):
    dataset = read_dataset(tree("cifar10"), "cifar10")
    order = torch.randperm(20, generator=torch.Generator().manual_seed(43)).tolist()
    greens = [dataset.splits["train"].images.open(i).getpixel((31, 31)) for i in range(18)]
    assert greens == [(0, position // 4, 0) for position in order[:18]]


def test_stls_images_are_upright(tree):
    assert read_dataset(tree("stl10"), "stl10").splits["test"].images.open(0).getpixel((60, 5)) == (200, 100, 50)


def test_boxes_and_points_are_in_pixels_from_zero(tree):
    assert read_dataset(tree("cub200"), "cub200").splits["test"].targets_NT[0].tolist() == [3, 4, 23, 14]
    assert read_dataset(tree("cars"), "cars").splits["test"].targets_NT[0].tolist() == [1, 2, 9, 8]
    voc = read_dataset(tree("voc"), "voc")
    assert voc.classes == ("bus", "cat") and voc.splits["test"].targets_NT[0].tolist() == [0, 0, 9, 7]
    parts = read_dataset(tree("cub200-parts"), "cub200-parts").splits
    assert parts["all"].targets_NT[0].tolist() == [v for part in range(1, 9) for v in (part, 2 * part)]
    assert "images/002.Bird/7.jpg" not in parts["all"].names
    faces = read_dataset(tree("300w"), "300w").splits["train"]
    assert faces.images.open(0).size == (9, 9)
    assert faces.targets_NT.min(0)[0] == 0 and faces.targets_NT[:, ::2].max() == 9
    assert read_dataset(tree("lsp"), "lsp").splits["train"].targets_NT[0, :4].tolist() == [4, -1, 4, 0]


def test_a_pickle_that_would_run_code_is_refused(tree, tmp_path):
    cifar10(tmp_path / "bad")

    class Call:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "bad" / "test_batch").write_bytes(pickle.dumps({b"data": Call()}))
    with pytest.raises(RunError, match="is not a pickle of arrays"):
        read_dataset(tmp_path / "bad", "cifar10")
    assert not (tmp_path / "ran").exists()


def test_a_listed_image_that_is_missing_is_named(tmp_path):
    dtd(tmp_path / "dtd")
    (tmp_path / "dtd" / "images" / "banded" / "banded_0000.jpg").unlink()
    with pytest.raises(UsageError, match=r"banded_0000.jpg is listed but missing"):
        read_dataset(tmp_path / "dtd", "dtd")
