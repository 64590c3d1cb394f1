"""Reader of 3DIEBench: views of objects with their pose and light (Garrido 2023, arXiv 2302.10283).

Shape suffixes: N samples.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UsageError
from ..splits import Dataset, cut, cut_by_class
from .files import labelled

LATENTS = ("yaw", "pitch", "roll", "floor_hue", "light_theta", "light_phi", "light_hue")


def bench3d(root: Path, *, pose: bool) -> Dataset:
    """3DIEBench/ with SYNSET/OBJECT/image_0.jpg ... and latent_0.npy ..., and optionally train_images.npy and
    val_images.npy (lists of SYNSET/OBJECT; val is the test split), else 20 % of the objects of a class for test"""
    name = "3diebench-pose" if pose else "3diebench"
    layout = " ".join(str(bench3d.__doc__).split())
    lists = {split: root / f"{part}_images.npy" for split, part in (("train", "train"), ("test", "val"))}
    objects = [f"{a.name}/{b.name}" for a in sorted(root.iterdir()) if a.is_dir() for b in sorted(a.iterdir())]
    first = next((item for item in objects if (root / item / "image_0.jpg").exists()), "")
    if not first:
        raise UsageError(f"{root} is not {name} as expected: there is no image_0.jpg; expected {layout}")
    views = len(list((root / first).glob("image_*.jpg")))
    classes = tuple(sorted({item.split("/")[0] for item in objects}))
    if all(path.exists() for path in lists.values()):
        parts = {split: [str(item).strip().strip("/") for item in _list(path)] for split, path in lists.items()}
        how = "official lists; validation 10 % of the training objects, seed 0"
    else:
        of_N = np.array([classes.index(item.split("/")[0]) for item in objects])
        train, test = cut_by_class(of_N, 0.2, seed=0)
        parts = {"train": [objects[i] for i in train], "test": [objects[i] for i in test]}
        how = "20 % of the objects of each class are test; validation 10 % of the training objects, seed 0"
    kept, val = cut(len(parts["train"]), max(1, round(0.1 * len(parts["train"]))), seed=0)
    parts |= {"train": [parts["train"][i] for i in kept], "val": [parts["train"][i] for i in val]}
    splits = {}
    for split, items in parts.items():
        entries = [(f"{item}/image_{i}.jpg", item.split("/")[0]) for item in items for i in range(views)]
        targets = np.stack([_latent(root / item, i) for item in items for i in range(views)]) if pose else None
        splits[split] = labelled(root, entries, classes, targets_NT=targets)
    return Dataset(name, classes, splits, kind="values" if pose else "", target_names=LATENTS if pose else (), how=how)


def _list(path: Path) -> list[Any]:
    try:
        found: list[Any] = np.load(path, allow_pickle=False).tolist()
        return found
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a list ({error}); copy it again") from None


def _latent(folder: Path, view: int) -> NDArray[np.float64]:
    try:
        return np.load(folder / f"latent_{view}.npy", allow_pickle=False).astype(np.float64).reshape(len(LATENTS))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / f'latent_{view}.npy'} cannot be read ({error}); copy it again") from None


def _reader(*, pose: bool) -> Callable[[Path], Dataset]:
    reader = partial(bench3d, pose=pose)
    more = "; targets: yaw, pitch, roll, hue of the floor, angles and hue of the light" if pose else ""
    reader.__doc__ = f"{bench3d.__doc__}{more}"
    return reader


READERS: dict[str, Callable[[Path], Dataset]] = {"3diebench": _reader(pose=False), "3diebench-pose": _reader(pose=True)}
