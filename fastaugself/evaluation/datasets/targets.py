"""Readers of data sets with boxes, landmarks and views: CUB-200, 300W, CelebA, LSP, VOC, COIL-100, ALOI.

Shape suffixes: N samples, T target columns.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...errors import RunError, UsageError
from ...files import read_text
from ..splits import Dataset, Floats, Split, cut
from .files import cut_val_by_class, labelled, lines, need, read_mat

SHOWN_PARTS = 8  # the most often visible of CUB's 15 parts


def cub200(root: Path) -> Dataset:
    """CUB_200_2011/ with images/, images.txt, image_class_labels.txt, classes.txt, train_test_split.txt and
    bounding_boxes.txt"""
    boxes = _columns(root, "bounding_boxes.txt")
    corners = {key: [x, y, x + w, y + h] for key, (x, y, w, h) in boxes.items()}
    return _cub(root, "cub200", corners, "boxes")


def cub200_parts(root: Path) -> Dataset:
    """the files of cub200 and parts/part_locs.txt; only images that show all eight of the most often visible parts"""
    need(root, "cub200-parts", "parts/part_locs.txt", layout=f"{cub200.__doc__} and parts/part_locs.txt")
    located: dict[str, dict[str, list[float]]] = {}
    seen: dict[str, int] = {}
    for line in lines(root / "parts/part_locs.txt"):
        image, part, x, y, visible = line.split()
        if visible == "1":
            located.setdefault(image, {})[part] = [float(x), float(y)]
            seen[part] = seen.get(part, 0) + 1
    parts = sorted(sorted(seen, key=lambda part: (-seen[part], int(part)))[:SHOWN_PARTS], key=int)
    points = {
        image: [v for part in parts for v in found[part]]
        for image, found in located.items()
        if all(part in found for part in parts)
    }
    return _cub(root, "cub200-parts", points, "points")


def _cub(root: Path, name: str, targets: dict[str, list[float]], kind: str) -> Dataset:
    needed = ("images", "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
    need(root, name, *needed, layout=str(cub200.__doc__))
    files = dict(line.split() for line in lines(root / "images.txt"))
    kinds = dict(line.split() for line in lines(root / "image_class_labels.txt"))
    classes = dict(line.split(maxsplit=1) for line in lines(root / "classes.txt"))
    trains = dict(line.split() for line in lines(root / "train_test_split.txt"))
    names = tuple(classes.values())

    def split_of(ids: list[str]) -> Split:
        entries = [(f"images/{files[i]}", classes[kinds[i]]) for i in ids]
        return labelled(root, entries, names, targets_NT=np.array([targets[i] for i in ids], np.float64))

    whole = [i for i in files if i in targets]
    train = split_of([i for i in whole if trains[i] == "1"])
    splits = {
        "all": split_of(whole),
        "test": split_of([i for i in whole if trains[i] == "0"]),
        **cut_val_by_class(train, 5, seed=0),
    }
    how = "official; validation 5 images per class of train, seed 0 (not the published indices)"
    return Dataset(name, names, splits, kind=kind, episodes="all", how=how)  # type: ignore[arg-type]


def _columns(root: Path, name: str) -> dict[str, list[float]]:
    need(root, "cub200", name, layout=str(cub200.__doc__))
    rows = (line.split() for line in lines(root / name))
    return {row[0]: [float(v) for v in row[1:]] for row in rows}


def faces300w(root: Path) -> Dataset:
    """a folder with 01_Indoor/ and 02_Outdoor/, each *.png with *.pts beside them (68 points)"""
    need(root, "300w", "01_Indoor", "02_Outdoor", layout=str(faces300w.__doc__))
    entries, points, boxes = [], [], []
    for folder in ("01_Indoor", "02_Outdoor"):
        for path in sorted((root / folder).glob("*.pts")):
            found = read_points(path)
            box = square_around(found)
            entries.append((f"{folder}/{path.stem}.png", ""))
            points.append((found - [box[0], box[1]]).reshape(-1))
            boxes.append(box)
    if not entries:
        raise UsageError(f"{root} is not 300w as expected: there is no .pts file; expected {faces300w.__doc__}")
    whole = labelled(root, entries, (), targets_NT=np.array(points), boxes=boxes)
    order = np.random.RandomState(0).permutation(len(whole))
    a, b = round(0.3 * len(whole)), round(0.6 * len(whole))
    splits = {"train": whole.take(order[:a]), "val": whole.take(order[a:b]), "test": whole.take(order[b:])}
    how = "30/30/40 % at random, seed 0; square crops at the landmarks"
    return Dataset("300w", (), splits, kind="points", how=how)


def read_points(path: Path) -> Floats:
    """The points (x, y) of a .pts file in 0-based pixels, float64 [K, 2]."""
    text = read_text(path)
    inside = re.search(r"\{(.*?)\}", text, re.DOTALL)
    try:
        values = np.array(inside.group(1).split(), np.float64).reshape(-1, 2)  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        raise RunError(f"{path} is not a .pts file: expected points as `x y` lines between braces") from None
    return values - 1


def square_around(points_K2: Floats) -> tuple[float, float, float, float]:
    """The square (left, top, right, bottom) around the points: centre and longer side of their bounding box."""
    low, high = points_K2.min(0), points_K2.max(0)
    half = float((high - low).max()) / 2
    x, y = ((low + high) / 2).tolist()
    left, top, side = round(x - half), round(y - half), max(1, round(2 * half))
    return (left, top, left + side, top + side)


def celeba(root: Path) -> Dataset:
    """a folder with img_align_celeba/*.jpg, list_eval_partition.txt and list_landmarks_align_celeba.txt"""
    files = ("img_align_celeba", "list_eval_partition.txt", "list_landmarks_align_celeba.txt")
    need(root, "celeba", *files, layout=str(celeba.__doc__))
    rows = [line.split() for line in lines(root / files[2])]
    points = {row[0]: [float(v) for v in row[1:]] for row in rows if len(row) == 11}
    parts: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    for line in lines(root / files[1]):
        name, part = line.split()
        parts[part].append(name)
    splits = {}
    for split, part in (("train", "0"), ("val", "1"), ("test", "2")):
        lacking = [name for name in parts[part] if name not in points]
        if lacking:
            raise UsageError(f"{root / files[2]} has no landmarks of {lacking[0]}: is the file complete?")
        targets = np.array([points[name] for name in parts[part]], np.float64)
        entries = [(f"img_align_celeba/{name}", "") for name in parts[part]]
        splits[split] = labelled(root, entries, (), targets_NT=targets)
    return Dataset("celeba", (), splits, kind="points", how="official list_eval_partition.txt")


def lsp(root: Path) -> Dataset:
    """a folder with images/im0001.jpg ... and joints.mat (14 joints)"""
    need(root, "lsp", "images", "joints.mat", layout=str(lsp.__doc__))
    joints = np.asarray(read_mat(root / "joints.mat")["joints"], np.float64)  # (x, y, hidden) x 14 x images
    if joints.ndim != 3 or joints.shape[:2] != (3, 14):
        raise RunError(f"{root / 'joints.mat'} has joints of shape {joints.shape}, expected (3, 14, images)")
    points = (joints[:2].transpose(2, 1, 0) - 1).reshape(joints.shape[2], -1)
    names = sorted(path.name for path in (root / "images").glob("*.jpg"))
    if len(names) != len(points):
        raise UsageError(f"{root} has {len(names)} images but joints of {len(points)}: is the data set complete?")
    whole = labelled(root, [(f"images/{name}", "") for name in names], (), targets_NT=points)
    order = np.random.RandomState(0).permutation(len(whole))
    rest, test = np.split(order, [round(0.6 * len(whole))])
    kept, held_out = cut(len(rest), max(1, round(0.1 * len(rest))), seed=0)
    splits = {"train": whole.take(rest[kept]), "val": whole.take(rest[held_out]), "test": whole.take(test)}
    return Dataset("lsp", (), splits, kind="points", how="60/40 % at random, seed 0; validation 10 % of train")


def voc(root: Path) -> Dataset:
    """VOC2007/ or VOC2012/ (or VOCdevkit/ above it) with JPEGImages/, Annotations/ and ImageSets/Main/ with train.txt,
    val.txt and optionally test.txt; class and box of each image's largest object"""
    inside = sorted(root.glob("VOC20*"))
    root = inside[0] if inside and not (root / "JPEGImages").exists() else root
    need(
        root,
        "voc",
        "JPEGImages",
        "Annotations",
        "ImageSets/Main/train.txt",
        "ImageSets/Main/val.txt",
        layout=str(voc.__doc__),
    )
    lists = {"train": "train", "val": "val", "test": "test"}
    if not (root / "ImageSets/Main/test.txt").exists():  # VOC2012's test annotations are not public
        lists = {"train": "train", "test": "val"}
    found = {}
    for split, name in lists.items():
        ids = [line.split()[0] for line in lines(root / f"ImageSets/Main/{name}.txt")]
        found[split] = [(f"JPEGImages/{i}.jpg", *largest_object(root / "Annotations" / f"{i}.xml")) for i in ids]
    classes = tuple(sorted({kind for rows in found.values() for _, kind, _ in rows}))
    splits = {
        split: labelled(
            root, [(name, kind) for name, kind, _ in rows], classes, targets_NT=np.array([box for *_, box in rows])
        )
        for split, rows in found.items()
    }
    return Dataset("voc", classes, splits, kind="boxes", how=f"official lists {', '.join(lists.values())}")


def largest_object(path: Path) -> tuple[str, list[float]]:
    """Class and box (left, top, right, bottom) in 0-based pixels of the largest object of an annotation file."""
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
        found = []
        for entry in objects:
            sides = [float(entry.findtext(f"bndbox/{name}", "")) for name in ("xmin", "ymin", "xmax", "ymax")]
            found.append((entry.findtext("name", ""), [sides[0] - 1, sides[1] - 1, sides[2], sides[3]]))
        return max(found, key=lambda item: (item[1][2] - item[1][0]) * (item[1][3] - item[1][1]))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise RunError(f"{path} is not an annotation with a box ({error})") from None


def views(root: Path, *, name: str, pattern: str, layout: str) -> Dataset:
    """Views of objects: all PNG images below `root` whose name matches `pattern`; its groups name the object."""
    entries = []
    for path in sorted(root.rglob("*.png")):
        match = re.fullmatch(pattern, path.name)
        if match:
            entries.append((path.relative_to(root).as_posix(), "-".join(match.groups())))
    if not entries:
        raise UsageError(f"{root} is not {name} as expected: no image in it has a matching name; expected {layout}")
    classes = sorted({kind for _, kind in entries})
    return Dataset(name, tuple(classes), {"all": labelled(root, entries, classes)}, episodes="all", how="no splits")


def _views(name: str, pattern: str, layout: str) -> Callable[[Path], Dataset]:
    reader = partial(views, name=name, pattern=pattern, layout=layout)
    reader.__doc__ = layout
    return reader


READERS: dict[str, Callable[[Path], Dataset]] = {
    "cub200": cub200,
    "cub200-parts": cub200_parts,
    "300w": faces300w,
    "celeba": celeba,
    "lsp": lsp,
    "voc": voc,
    "coil100": _views("coil100", r"obj(\d+)__\d+\.png", "obj1__0.png ... obj100__355.png (eval invariance --views)"),
    "aloi-viewpoint": _views("aloi-viewpoint", r"(\d+)_r\d+\.png", "1/1_r0.png ... (eval invariance --views)"),
    "aloi-illumination": _views(
        "aloi-illumination",
        r"(\d+)_l\d+(c\d+)\.png",
        "1/1_l1c1.png ..., each camera of an object counts as an object (eval invariance --views)",
    ),
    "aloi-temperature": _views("aloi-temperature", r"(\d+)_i\d+\.png", "1/1_i110.png ... (eval invariance --views)"),
}
