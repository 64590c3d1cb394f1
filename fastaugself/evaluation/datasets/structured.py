"""Readers of VTAB's structured tasks, whose numbers are made classes as there (Zhai 2019, arXiv 1910.04867): CLEVR,
DMLab, KITTI, dSprites and smallNORB.

VTAB takes the images in the order of TensorFlow Datasets. Splits that are not distributed as files are drawn here in
about the same sizes, with seed 0.

Shape suffixes: N samples.
"""

import gzip
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UsageError
from ..splits import Dataset, Split, cut
from .files import cut_val, labelled, lines, need
from .raw_images import GreyArrays, read_records

CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0  # its distance
VEHICLES = ("Car", "Van", "Truck")
DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
NORB = {"train": "smallnorb-5x46789x9x18x6x2x96x96-training", "test": "smallnorb-5x01235x9x18x6x2x96x96-testing"}


def _binned(values_N: Sequence[float], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """The number of the last threshold below each value."""
    return np.searchsorted(thresholds, values_N, side="left") - 1


def _classes(split: Split, labels_N: NDArray[np.int64]) -> Split:
    return Split(split.images, labels_N, None, split.names)


def clevr(root: Path, *, task: str) -> Dataset:
    """CLEVR_v1.0/ with images/{train,val}/*.png and scenes/CLEVR_{train,val}_scenes.json; test is the official val"""
    parts = {"train": "train", "test": "val"}
    files = [f"scenes/CLEVR_{part}_scenes.json" for part in parts.values()]
    need(root, f"clevr-{task}", "images/train", "images/val", *files, layout=str(clevr.__doc__))
    splits = {}
    for split, part in parts.items():
        scenes = _scenes(root / f"scenes/CLEVR_{part}_scenes.json")
        images = labelled(root, [(f"images/{part}/{scene['image_filename']}", "") for scene in scenes], ())
        if task == "count":
            labels_N = np.array([len(scene["objects"]) - 3 for scene in scenes], np.int64)
        else:
            nearest = [min(item["pixel_coords"][2] for item in scene["objects"]) for scene in scenes]
            labels_N = _binned(nearest, CLEVR_DISTANCES)
        splits[split] = _classes(images, labels_N)
    splits |= cut_val(splits["train"], 7000, 70_000, seed=0)
    classes = [f"{number} objects" for number in range(3, 11)] if task == "count" else _ranges(CLEVR_DISTANCES)
    return Dataset(f"clevr-{task}", tuple(classes), splits, how="official; validation 10 % of train, seed 0")


def _scenes(path: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text())["scenes"]
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read as CLEVR's scenes ({error}); copy it again") from None


def _ranges(thresholds: Sequence[float]) -> list[str]:
    return [f"up to {high:g}" for high in thresholds[1:]]


def dmlab(root: Path) -> Dataset:
    """a folder with records of TensorFlow for each split: *train*tfrecord*, *validation*tfrecord*, *test*tfrecord*"""
    splits = {}
    for split, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        files = sorted(root.glob(f"*{part}*tfrecord*"))
        if not files:
            raise UsageError(f"{root} is not dmlab as expected: *{part}*tfrecord* is missing; expected {dmlab.__doc__}")
        images, labels_N = read_records(files, image="image", label="label")
        splits[split] = Split(images, labels_N)
    highest = max(int(split.labels_N.max()) for split in splits.values())
    return Dataset("dmlab", tuple(f"class {i}" for i in range(highest + 1)), splits, how="official")


def kitti(root: Path) -> Dataset:
    """a folder with training/image_2/*.png, training/label_2/*.txt, and mapping/ of the object devkit with
    train_mapping.txt and train_rand.txt, or devkit/mapping/, devkit_object/mapping/"""
    found = [name for name in ("mapping", "devkit/mapping", "devkit_object/mapping") if (root / name).is_dir()]
    mapping = found[0] if found else "mapping"
    needed = ("training/image_2", "training/label_2", f"{mapping}/train_mapping.txt", f"{mapping}/train_rand.txt")
    need(root, "kitti-distance", *needed, layout=str(kitti.__doc__))
    names = sorted(path.stem for path in (root / "training/image_2").glob("*.png"))
    images = labelled(root, [(f"training/image_2/{name}.png", "") for name in names], ())
    nearest = [_nearest_vehicle(root / "training/label_2" / f"{name}.txt") for name in names]
    whole = _classes(images, _binned(nearest, KITTI_DISTANCES))
    drives = _drives(root / mapping, names)
    splits = {name: whole.take(positions) for name, positions in _by_group(drives).items()}
    classes = ("up to 8 m", "up to 20 m", "farther", "no vehicle")
    return Dataset("kitti-distance", classes, splits, how="85/5/10 % by drive, seed 0 (not the published drives)")


def _nearest_vehicle(path: Path) -> float:
    """Distance in metres along the camera's axis of the nearest car, van or truck of a label file."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        return min([float(row[13]) for row in rows if row and row[0] in VEHICLES], default=NO_VEHICLE)
    except (OSError, ValueError, IndexError) as error:
        raise RunError(f"{path} is not a label file of KITTI ({error}); copy it again") from None


def _drives(folder: Path, names: Sequence[str]) -> list[str]:
    """The recording that each image is from: train_rand.txt has the line in train_mapping.txt, from 1."""
    mapping, order = lines(folder / "train_mapping.txt"), ",".join(lines(folder / "train_rand.txt")).split(",")
    try:
        return [mapping[int(order[int(name)]) - 1].split()[1] for name in names]
    except (ValueError, IndexError) as error:
        raise RunError(f"{folder} does not map all images to their drives ({error}); copy the devkit again") from None


def _by_group(groups: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Positions by split: whole groups in random order, first 10 % for test, then 5 % for validation."""
    of_N = np.array(groups)
    order, _ = cut(len(names := np.unique(of_N)), 0, seed=0)
    found: dict[str, list[int]] = {"test": [], "val": [], "train": []}
    for name in names[order].tolist():
        taken = {split: len(positions) for split, positions in found.items()}
        split = "test" if taken["test"] < 0.1 * len(of_N) else "val" if taken["val"] < 0.05 * len(of_N) else "train"
        found[split] += np.flatnonzero(of_N == name).tolist()
    return {split: np.sort(np.array(found[split], np.int64)) for split in ("train", "val", "test")}


def dsprites(root: Path, *, task: str) -> Dataset:
    """a folder with dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz; location: x in 16 bins, orientation: 16 bins"""
    name = f"dsprites-{task}"
    need(root, name, DSPRITES, layout=str(dsprites.__doc__))
    try:
        with np.load(root / DSPRITES, allow_pickle=False) as archive:
            images, classes_N6 = archive["imgs"], archive["latents_classes"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{root / DSPRITES} cannot be read as dSprites ({error}); copy it again") from None
    column, values = {"location": (4, 32), "orientation": (3, 40)}[task]
    labels_N = np.floor(classes_N6[:, column] / (values / 16)).astype(np.int64)
    whole = Split(GreyArrays(images, 255), labels_N)
    rest, test = cut(len(whole), round(0.1 * len(whole)), seed=0)
    kept, val = cut(len(rest), round(0.1 * len(whole)), seed=0)
    splits = {"train": whole.take(rest[kept]), "val": whole.take(rest[val]), "test": whole.take(test)}
    return Dataset(name, tuple(f"bin {i}" for i in range(16)), splits, how="80/10/10 % at random, seed 0")


def smallnorb(root: Path, *, task: str) -> Dataset:
    """a folder with the -dat, -cat and -info files smallnorb-5x46789x9x18x6x2x96x96-training-*.mat and
    smallnorb-5x01235x9x18x6x2x96x96-testing-*.mat, or the same with .gz; images of the first camera"""
    column, step, classes = {
        "azimuth": (2, 2, [f"{20 * i} degrees" for i in range(18)]),
        "elevation": (1, 1, [f"{30 + 5 * i} degrees" for i in range(9)]),
    }[task]
    splits = {}
    for split, stem in NORB.items():
        found = []
        for kind in ("dat", "info"):
            packed = not (root / f"{stem}-{kind}.mat").exists() and (root / f"{stem}-{kind}.mat.gz").exists()
            file = f"{stem}-{kind}.mat" + (".gz" if packed else "")
            need(root, f"smallnorb-{task}", file, layout=str(smallnorb.__doc__))
            found.append(_norb_matrix(root / file))
        splits[split] = Split(
            GreyArrays(np.ascontiguousarray(found[0][:, 0])), found[1][:, column].astype(np.int64) // step
        )
    test = splits["test"]
    kept, val = cut(len(test), len(test) // 2, seed=0)
    splits |= {"val": test.take(val), "test": test.take(kept)}
    how = "official; validation a random half of test, seed 0"
    return Dataset(f"smallnorb-{task}", tuple(classes), splits, how=how)


def _norb_matrix(path: Path) -> NDArray[Any]:
    """A matrix in NORB's format: magic number, number of dimensions, at least three sizes, values; little-endian."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        magic, count = np.frombuffer(data, "<i4", 2).tolist()
        kind: Any = {0x1E3D4C55: np.uint8, 0x1E3D4C54: "<i4"}[magic]
        sizes = np.frombuffer(data, "<i4", count, offset=8).tolist()
        return np.frombuffer(data, kind, int(np.prod(sizes)), offset=8 + 4 * max(3, count)).reshape(sizes)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read as a matrix of NORB ({error}); copy it again") from None


def _task(reader: Callable[..., Dataset], **options: Any) -> Callable[[Path], Dataset]:
    made = partial(reader, **options)
    made.__doc__ = reader.__doc__
    return made


READERS: dict[str, Callable[[Path], Dataset]] = {
    "clevr-count": _task(clevr, task="count"),
    "clevr-distance": _task(clevr, task="distance"),
    "dmlab": dmlab,
    "kitti-distance": kitti,
    "dsprites-location": _task(dsprites, task="location"),
    "dsprites-orientation": _task(dsprites, task="orientation"),
    "smallnorb-azimuth": _task(smallnorb, task="azimuth"),
    "smallnorb-elevation": _task(smallnorb, task="elevation"),
}
