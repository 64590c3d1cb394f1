"""The demo data set: crops of eight real photos from the scikit-image and scikit-learn packages.

Eight photos say nothing about transfer. But each crop has known factors (photo, position, scale, hue rotation), which
the sidecar stores, so that a report can measure how much of each factor a representation keeps.
"""

import importlib.util
import io
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from ..errors import RunError, UsageError
from .beton.format import MAX_SIDE
from .beton.sidecar import Sidecar
from .beton.writer import BetonWriter
from .cores import available_cores
from .parallel import ordered_map

# Class name, package, file below it. Licences: astronaut, hubble and rocket are in the public domain (NASA, SpaceX);
# cat, coffee and retina CC0; china CC BY 2.0 by danielbuechele; flower CC BY 2.0 by Flickr user vultilion.
_PHOTOS = (
    ("astronaut", "skimage", "data/astronaut.png"),
    ("cat", "skimage", "data/chelsea.png"),
    ("china", "sklearn", "datasets/images/china.jpg"),
    ("coffee", "skimage", "data/coffee.png"),
    ("flower", "sklearn", "datasets/images/flower.jpg"),
    ("hubble", "skimage", "data/hubble_deep_field.jpg"),
    ("retina", "skimage", "data/retina.jpg"),
    ("rocket", "skimage", "data/rocket.jpg"),
)
DEMO_CLASSES = [name for name, _, _ in _PHOTOS]
_SPLITS = ("train", "val")
DEMO_COUNTS = {"train": 4096, "val": 1024}
_SCALES = (0.35, 0.8)  # crop side as a fraction of the photo's shorter side
_HUES = 256  # hue steps per full turn in Pillow's HSV mode


class _Crop(NamedTuple):
    """photo: class index. side: pixels of the original photo. centre_y, centre_x, scale: fractions. hue: turns."""

    photo: int
    side: float
    centre_y: float
    centre_x: float
    scale: float
    hue: float


def write_demo(
    out: str | os.PathLike[str],
    *,
    count: int | None = None,
    size: int = 80,
    seed: int = 0,
    split: Literal["train", "val"] = "train",
) -> Path:
    """Writes `count` square crops of eight real photos to the `.beton` file `out`, and returns its path.

    count: default 4096 for train and 1024 for val, divided equally among the photos. size: side of the crops in pixels.
    seed: random seed of the crops; train and val are drawn independently. An existing `out` is replaced.

    The sidecar has the photos as classes and a column for each factor: `photo` (the label), `centre_y` and `centre_x`
    (centre of the crop, as a fraction of the photo's height and width), `scale` (side of the crop as a fraction of the
    photo's shorter side, in [0.35, 0.8)) and `hue` (hue rotation in turns, a multiple of 1/256 in [-0.5, 0.5)).

    Raises UsageError if scikit-image or scikit-learn is missing.
    """
    if split not in _SPLITS:
        raise UsageError(f"split is {split!r}, expected train or val")
    count = DEMO_COUNTS[split] if count is None else count
    if count < 1 or not 8 <= size <= MAX_SIDE:
        raise UsageError(f"count is {count} and size {size}, expected at least 1 crop of at least 8 pixels")
    photos = load_photos()
    crops = _draw(list(photos.values()), count, seed, split)

    def jpeg(crop: _Crop) -> bytes:
        return _make(list(photos.values())[crop.photo], crop, size)

    workers = available_cores()
    with BetonWriter(out, count) as writer:
        for crop, data in zip(crops, ordered_map(jpeg, crops, workers=workers, ahead=16 * workers), strict=True):
            writer.add(data, crop.photo)
        factors = ("photo", "centre_y", "centre_x", "scale", "hue")
        writer.sidecar = Sidecar(
            classes=list(photos),
            source="photos inside scikit-image and scikit-learn",
            options={"count": count, "size": size, "seed": seed, "split": split},
            counts={"samples": count},
            columns={name: [round(float(getattr(crop, name)), 6) for crop in crops] for name in factors},
        )
    return Path(out)


def load_photos() -> dict[str, Image.Image]:
    """The eight photos as RGB images by class name, read from the installed packages."""
    found: dict[str, Image.Image] = {}
    for name, package, file in _PHOTOS:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UsageError(
                f"the demo's photos come with scikit-image and scikit-learn, and {package} is not "
                f"installed: pip install scikit-image scikit-learn"
            )
        path = Path(spec.origin).parent / file
        try:
            with Image.open(path) as image:
                found[name] = image.convert("RGB")
        except OSError as error:
            raise RunError(
                f"the demo's photo {path} cannot be read ({error}): pip install --force-reinstall "
                f"scikit-image scikit-learn"
            ) from error
    return found


def _draw(photos: list[Image.Image], count: int, seed: int, split: str) -> list[_Crop]:
    random = np.random.default_rng([seed, _SPLITS.index(split)])
    crops = []
    for i, (a, y, x, hue) in enumerate(random.random((count, 4))):
        photo = i % len(photos)
        width, height = photos[photo].size
        scale = _SCALES[0] + (_SCALES[1] - _SCALES[0]) * a
        side = scale * min(width, height)
        centre_y, centre_x = (side / 2 + y * (height - side)) / height, (side / 2 + x * (width - side)) / width
        crops.append(_Crop(photo, side, centre_y, centre_x, scale, int(hue * _HUES) / _HUES - 0.5))
    return crops


def _make(photo: Image.Image, crop: _Crop, size: int) -> bytes:
    top, left = crop.centre_y * photo.height - crop.side / 2, crop.centre_x * photo.width - crop.side / 2
    box = (max(0.0, left), max(0.0, top), min(photo.width, left + crop.side), min(photo.height, top + crop.side))
    image = photo.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    hue, saturation, value = image.convert("HSV").split()
    step = round(crop.hue * _HUES)
    image = Image.merge("HSV", (hue.point([(h + step) % _HUES for h in range(_HUES)]), saturation, value))
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=95)
    return out.getvalue()
