"""Read the pixels of photos to draw, from a photo, a folder or a `.beton` file.

Shape suffixes: B photos, C channels, H W, N samples of a file.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.beton.format import Beton
from ..data.inputs.folder import list_photos
from ..data.inputs.photo import load_photo
from ..data.ragged import RaggedBatch
from ..data.readers.native import decode_into
from ..errors import RunError, UsageError


class Sample(NamedTuple):
    """A decoded photo, uint8 [H, W, 3]. name: shown. id: index in its data set, which addresses its randomness."""

    name: str
    id: int
    pixels_HWC: Tensor


def read_samples(source: Path, count: int) -> list[Sample]:
    """Reads at most `count` photos of a photo, folder or .beton file, evenly spaced over the classes.

    Raises UsageError for a path that is none of these, RunError for damaged photos.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder; pass a photo, a folder of photos or a .beton file")
    if source.is_dir():
        folder = list_photos(source)
        chosen = evenly_spaced(folder.labels, count)
        return [Sample(folder.files[i], i, read_photo(folder.root / folder.files[i])) for i in chosen]
    if source.suffix.lower() == ".beton":
        with Beton(source) as beton:
            chosen = evenly_spaced(beton.labels_N, count)
            return [Sample(f"{source.name}, sample {i}", i, read_stored(beton, i)) for i in chosen]
    try:
        return [Sample(source.name, 0, read_photo(source))]
    except RunError as error:
        raise UsageError(f"{error}; expected a photo, a folder of photos or a .beton file") from error


def evenly_spaced(labels_N: Sequence[int] | NDArray[np.int64], count: int) -> list[int]:
    """At most `count` sample ids, evenly spaced over the samples in the order of their classes."""
    order = np.argsort(np.asarray(labels_N), kind="stable")
    count = min(count, len(order))
    return [int(order[i * len(order) // count]) for i in range(count)]


def read_photo(path: Path) -> Tensor:
    """The pixels of a photo, uint8 [H, W, 3], encoded as by `fastaugself write` and decoded as in training."""
    photo = load_photo(path)
    with Image.open(io.BytesIO(bytes(photo.image))) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def read_stored(beton: Beton, sample: int) -> Tensor:
    """The pixels of one sample of a .beton file, uint8 [H, W, 3]. Raises RunError if it cannot be decoded."""
    height, width = beton.sizes_N2[sample].tolist()
    pixels = np.empty(height * width * 3, np.uint8)
    fault = decode_into(beton, sample, pixels)
    if fault is not None:
        raise RunError(f"{beton.path}: sample {sample} cannot be decoded ({fault}); copy or write the file again")
    return torch.from_numpy(pixels).view(height, width, 3)


def pack(samples: Sequence[Sample]) -> RaggedBatch:
    """Packs the samples into one ragged batch; labels are -1."""
    flat = [sample.pixels_HWC.reshape(-1) for sample in samples]
    ends = torch.tensor([len(pixels) for pixels in flat]).cumsum(0)
    return RaggedBatch(
        pixels=torch.cat(flat),
        offsets_B=torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]]),
        sizes_B2=torch.tensor([sample.pixels_HWC.shape[:2] for sample in samples], dtype=torch.int32),
        labels_B=torch.full((len(samples),), -1),
        ids_B=torch.tensor([sample.id for sample in samples]),
    )
