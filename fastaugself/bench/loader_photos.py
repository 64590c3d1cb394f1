"""The photos of `bench loader`, as JPEG and raw, in the same random order.

Shape suffixes: N samples, 2 = (height, width).
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.beton.format import JPEG, Beton
from ..data.beton.writer import BetonWriter
from ..data.demo import load_photos
from ..data.inputs.photo import load_photo
from ..errors import UsageError
from .harness import Record

HEIGHT, WIDTH = 375, 500  # of the default photos
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
Storage = Literal["jpeg", "raw"]


def write_beton(
    source: Path | None, folder: Path, photos: int, batch: int, storage: Sequence[Storage]
) -> tuple[dict[Storage, Path], Record]:
    """Writes the photos as JPEG and raw in the same random order; returns the files and a description."""
    import simplejpeg

    jpegs = list(_jpegs(source, photos))
    count = len(jpegs) // batch * batch
    if not count:
        raise UsageError(
            f"{len(jpegs)} photos do not fill a batch of {batch}: pass --batch {len(jpegs)} or more photos"
        )
    random.Random(0).shuffle(jpegs)
    del jpegs[count:]
    sizes_N2 = np.array([simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in jpegs])
    files = {stored: folder / f"{stored}.beton" for stored in storage}
    for stored, path in files.items():
        with BetonWriter(path, count) as writer:
            for jpeg in jpegs:
                raw = stored == "raw"
                writer.add(simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=False) if raw else jpeg)
    pixels = float(sizes_N2.prod(1).mean())
    return files, {
        "source": source.name if source else None,
        "photos": count,
        "pixels": pixels,
        "jpeg_bytes": sum(map(len, jpegs)) / count,
        "raw_bytes": 3 * pixels,
    }


def _jpegs(source: Path | None, count: int) -> Iterator[bytes]:
    """JPEG bytes of `count` photos, or of all if there are fewer."""
    if source is None:
        yield from _crops(count)
    elif source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in EXTENSIONS)
        if not paths:
            raise UsageError(f"{source} holds no photos ({', '.join(EXTENSIONS)})")
        for path in _spaced(paths, count):
            yield _as_jpeg(load_photo(path).image)
    else:
        with Beton(source) as beton:
            for i in _spaced(range(beton.num_samples), count):
                data = beton.read(i)
                raw = beton.modes_N[i] != JPEG
                yield _as_jpeg(np.frombuffer(data, np.uint8).reshape(*beton.sizes_N2[i], 3) if raw else data)


def _as_jpeg(image: bytes | NDArray[np.uint8]) -> bytes:
    import simplejpeg

    if isinstance(image, bytes):
        return image
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90, colorsubsampling="420")


def _spaced(values: Sequence[Any], count: int) -> Iterator[Any]:
    count = min(count, len(values))
    return (values[i * len(values) // count] for i in range(count))


def _crops(count: int) -> Iterator[bytes]:
    """Crops of 375 x 500 of the real photos that come with scikit-image and scikit-learn."""
    large = [p for p in load_photos().values() if p.width >= WIDTH and p.height >= HEIGHT]
    draw = random.Random(0)
    for i in range(count):
        photo = large[i % len(large)]
        left, top = draw.randint(0, photo.width - WIDTH), draw.randint(0, photo.height - HEIGHT)
        yield _as_jpeg(np.asarray(photo)[top : top + HEIGHT, left : left + WIDTH])
