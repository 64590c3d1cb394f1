"""Readers of data sets with segmentation masks: photos and, for each, an image of the class of every pixel.

Shape suffixes: N samples, H W.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...data.inputs.folder import list_photos, split_of
from ...data.inputs.opening import opened, read_whole
from ...errors import RunError, UsageError
from ..splits import Files, Labels, Split, cut
from .files import lines, need

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SEED = 0  # of the random splits of data without splits
LAYOUT = (
    "train/images and train/masks (or images/train and masks/train) with a test or val beside train, or images/ and "
    "masks/ without splits; a mask is "
    "a palette or gray PNG of its photo's name; an optional classes.txt names the classes from value 0"
)
VOC_LAYOUT = (
    "VOC2012/ or the folder above it, with JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/"
    "train.txt, val.txt"
)


@dataclass(frozen=True)
class MaskSplit:
    """Photos with their masks, in one order."""

    photos: Split
    masks: Files

    def __len__(self) -> int:
        return len(self.photos)

    def take(self, indices: Labels) -> "MaskSplit":
        """The samples at `indices`, in that order."""
        return MaskSplit(self.photos.take(indices), Files(self.masks.root, [self.masks.names[i] for i in indices]))

    def join(self, other: "MaskSplit") -> "MaskSplit":
        """The concatenation with another split below the same folder."""
        names = [*self.masks.names, *other.masks.names]
        return MaskSplit(self.photos.join(other.photos), Files(self.masks.root, names))

    def mask(self, index: int) -> Image.Image:
        """A mask as an image of mode L whose values are those of the file; RunError if it is another kind of image."""
        path = self.masks.root / self.masks.names[index]
        with opened(str(path), read_whole(path)) as image:
            if image.mode not in ("P", "L", "1"):
                raise RunError(
                    f"{path} has pixels of mode {image.mode}, not one class value for each: convert it to a palette or "
                    f"8-bit gray PNG"
                )
            return Image.fromarray(np.asarray(image).astype(np.uint8))


@dataclass(frozen=True)
class MaskData:
    """A data set with masks.

    classes: names by value from 0; empty if the classes are the values that occur. splits: `train`, `test` and perhaps
    `val`. how: description of the splits.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, MaskSplit]
    how: str

    def limited(self, most: Mapping[str, int], *, seed: int) -> "MaskData":
        """With at most `most` random samples of the splits that it names."""
        generator = np.random.default_rng(seed)
        splits = {}
        for name, split in self.splits.items():
            order = generator.permutation(len(split))[: most.get(name, len(split))]
            splits[name] = split.take(np.sort(order)) if len(order) < len(split) else split
        said = ", ".join(f"{count} of {name}" for name, count in most.items())
        return replace(self, splits=splits, how=f"{self.how}; at most {said}" if said else self.how)

    def with_val(self, *, seed: int, resplit: bool) -> "MaskData":
        """With 10 % of the training samples as validation split, if there is none. resplit: even if there is one."""
        if resplit and "val" in self.splits:
            train = self.splits["train"].join(self.splits["val"])
            others = {name: split for name, split in self.splits.items() if name != "val"}
            return replace(self, splits={**others, "train": train}).with_val(seed=seed, resplit=False)
        if "val" in self.splits:
            return self
        train = self.splits["train"]
        if len(train) < 2:
            raise UsageError(f"{self.name}: {len(train)} training photo is too few for a validation split; add more")
        kept, held_out = cut(len(train), max(1, round(0.1 * len(train))), seed=seed)
        splits = {**self.splits, "train": train.take(np.sort(kept)), "val": train.take(np.sort(held_out))}
        return replace(self, splits=splits, how=f"{self.how}; validation 10 % of train, seed {seed}")


def voc_segmentation(root: Path) -> MaskData:
    """Reads VOC's segmentation masks, 21 classes with the background; the official val is the test split."""
    for inner in (root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        root = inner if inner.is_dir() else root
    lists = {"train": "ImageSets/Segmentation/train.txt", "test": "ImageSets/Segmentation/val.txt"}
    need(root, "voc-segmentation", *lists.values(), "JPEGImages", "SegmentationClass", layout=VOC_LAYOUT)
    splits = {}
    for split, path in lists.items():
        names = [line.split()[0] for line in lines(root / path)]
        photos = [f"JPEGImages/{name}.jpg" for name in names]
        splits[split] = _paired(root, photos, [f"SegmentationClass/{name}.png" for name in names])
    return MaskData("voc-segmentation", VOC_CLASSES, splits, "official train; official val as test")


def mask_folders(root: Path) -> MaskData:
    """Reads folders of photos and masks; without splits, a random 20 % of the photos are the test split."""
    need(root, "masks", layout=LAYOUT)
    classes = tuple(lines(root / "classes.txt")) if (root / "classes.txt").exists() else ()
    name = root.resolve().name
    inside = _splits(root / "images")
    found = {split: (f"images/{folder}", f"masks/{folder}") for split, folder in inside.items()}
    if not found and (root / "images").is_dir():
        whole = _folder(root, "images", "masks")
        kept, held_out = cut(len(whole), max(1, round(0.2 * len(whole))), seed=SEED)
        if not len(kept):
            raise UsageError(f"{root / 'images'} holds {len(whole)} photo: add more, at least one to train and to test")
        splits = {"train": whole.take(np.sort(kept)), "test": whole.take(np.sort(held_out))}
        return MaskData(name, classes, splits, f"80/20 % at random, seed {SEED}")
    found = found or {split: (f"{folder}/images", f"{folder}/masks") for split, folder in _splits(root).items()}
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    if not {"train", "test"} <= found.keys():
        raise UsageError(
            f"{root} is not masks as expected: it has no images/, nor both train/ and test/; expected {LAYOUT}"
        )
    how = "folders " + ", ".join(found[split][0] for split in ("train", "val", "test") if split in found)
    return MaskData(name, classes, {split: _folder(root, *folders) for split, folders in found.items()}, how)


def _splits(folder: Path) -> dict[str, str]:
    """Names of the folders of splits in a folder, by split; {} if it does not exist."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {split: path.name for path in inside if path.is_dir() and (split := split_of(path.name))}


def _folder(root: Path, images: str, masks: str) -> MaskSplit:
    """The photos of one folder with the masks of the other, matched by their names without extensions."""
    need(root, "masks", images, masks, layout=LAYOUT)
    photos = list_photos(root / images)
    if photos.faults:
        raise RunError(photos.faults[min(photos.faults)])
    names = [f"{masks}/{Path(name).with_suffix('.png').as_posix()}" for name in photos.files]
    return _paired(root, [f"{images}/{name}" for name in photos.files], names)


def _paired(root: Path, photos: Sequence[str], masks: Sequence[str]) -> MaskSplit:
    """Raises UsageError for the first photo that is missing or has no mask."""
    for names, what in ((photos, "is listed but missing: is the data set complete?"), (masks, "")):
        gone = [i for i, name in enumerate(names) if not (root / name).is_file()]
        if gone:
            more = f" ({len(gone)} photos in all)" if len(gone) > 1 else ""
            missing = f"is missing, the mask of {photos[gone[0]]}{more}: add it, or remove the photo"
            raise UsageError(f"{root / names[gone[0]]} {what or missing}")
    labels_N = np.full(len(photos), -1, np.int64)
    return MaskSplit(Split(Files(root, photos), labels_N, None, photos), Files(root, masks))


READERS: dict[str, Callable[[Path], MaskData]] = {"masks": mask_folders, "voc-segmentation": voc_segmentation}
LAYOUTS = {"masks": LAYOUT, "voc-segmentation": VOC_LAYOUT}


def read_masks(path: Path, name: str = "") -> MaskData:
    """Reads the data set with masks `name` from `path`; default: VOC's layout if it is there, else folders.

    Raises UsageError for an unknown name, for files that are not laid out as expected, and for a photo without a mask.
    """
    if not path.exists():
        raise UsageError(f"--data {path}: no such file or folder")
    if not path.is_dir():
        raise UsageError(f"--data {path} is a file: segmentation needs {LAYOUT}")
    inner = ("", "VOC2012", "VOCdevkit/VOC2012")
    found_voc = any((path / folder / "SegmentationClass").is_dir() for folder in inner)
    name = name or ("voc-segmentation" if found_voc else "masks")
    if name not in READERS:
        raise UsageError(f"--dataset {name} has no masks: pass --dataset {' or --dataset '.join(READERS)}, or omit it")
    return READERS[name](path)


class ClassValues(NamedTuple):
    """names: of the classes, by index. table: int64 [256], index of each mask value, `ignored` where it has none."""

    names: tuple[str, ...]
    table: Labels


def class_values(values: Sequence[int], named: Sequence[str], ignore: Sequence[int], *, ignored: int) -> ClassValues:
    """The classes of a data set: those that are named, in the order of their values, or the values that occur.

    values: that occur in the masks. named: names by value from 0, or (). ignore: values of pixels without a class.
    Raises UsageError for a value beyond the named classes, and for fewer than two classes.
    """
    present = sorted(set(values) - set(ignore))
    beyond = [value for value in present if value >= len(named)] if named else []
    if beyond:
        raise UsageError(
            f"mask value {beyond[0]} is beyond the {len(named)} classes (0 to {len(named) - 1}): if its pixels have no "
            f"class, pass --ignore {' '.join(map(str, [*ignore, *beyond]))}; otherwise name it in classes.txt"
        )
    kept = [value for value in range(len(named)) if value not in ignore] if named else present
    if len(kept) < 2:
        only = f"one class ({kept[0]})" if kept else "no class"
        raise UsageError(
            f"the masks have {only} besides the ignored values {', '.join(map(str, ignore)) or 'none'}: expected at "
            f"least two; pass --ignore with the values that have no class, or --ignore -1 for none"
        )
    table = np.full(256, ignored, np.int64)
    table[kept] = np.arange(len(kept))
    return ClassValues(tuple(named[value] if named else str(value) for value in kept), table)
