"""The input of the contestants of `bench augment`: photos, and the number and kind of views to make.

Shape suffixes: B batch, H W, C channels, P parameter columns.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastaugself_kernels import ViewPolicy, sample_params
from fastaugself_kernels.params import HEIGHT, WIDTH

from ..data.beton.format import Beton
from ..data.demo import load_photos


@dataclass(frozen=True)
class Ready:
    """A contestant that has been set up.

    call: makes some views, [units, 3, size, size]. error: mean difference from the oracle in normalised units, for
    contestants that take our parameters.
    """

    call: Callable[[], Tensor]
    units: int
    error: float | None = None


Maker = Callable[["Work"], Ready]
"""Sets up a contestant; ImportError says what to install."""

PHOTO = (375, 500)  # (height, width), ImageNet's most frequent


@dataclass(frozen=True)
class Work:
    """photos: uint8 [H, W, 3], all of the same size. size: of the views in pixels. views: number of views per photo."""

    photos: Sequence[np.ndarray]
    size: int
    views: int
    policy: ViewPolicy
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def batch(self) -> int:
        return len(self.photos)

    @property
    def policies(self) -> tuple[ViewPolicy, ...]:
        return (self.policy,) * self.views

    def of(self, batch: int, start: int = 0) -> "Work":
        """A copy with at most `batch` of the photos, from index `start`."""
        return replace(self, photos=self.photos[start : start + batch])

    @cached_property
    def pixels_BHWC(self) -> Tensor:
        return torch.from_numpy(np.stack(self.photos)).to(self.device)

    @cached_property
    def sizes_B2(self) -> Tensor:
        return torch.tensor([self.photos[0].shape[:2]] * self.batch, dtype=torch.int32, device=self.device)

    @cached_property
    def ids_B(self) -> Tensor:
        return torch.arange(self.batch, device=self.device)

    def bytes_per_view(self) -> float:
        """Bytes to move per view: read the crop once, write the view once; mean over the policy's crops."""
        ids = torch.arange(4096)
        sizes = torch.tensor([self.photos[0].shape[:2]] * len(ids), dtype=torch.int32)
        params = sample_params(ids, sizes, (self.policy,), seed=0, epoch=0)
        read = (params[..., HEIGHT] * params[..., WIDTH]).mean().item() * 3
        return read + 3 * self.size**2 * self.dtype.itemsize


def natural_photos(count: int) -> list[np.ndarray]:
    """Crops of 375 x 500 of the real photos that come with scikit-image and scikit-learn, uint8 HWC."""
    height, width = PHOTO
    large = [p for p in load_photos().values() if p.width >= width and p.height >= height]
    draw = random.Random(0)
    found = []
    for i in range(count):
        photo = large[i % len(large)]
        left, top = draw.randint(0, photo.width - width), draw.randint(0, photo.height - height)
        found.append(np.ascontiguousarray(np.asarray(photo)[top : top + height, left : left + width]))
    return found


def photos_of(source: Path, count: int) -> list[np.ndarray]:
    """The first photos of a .beton file, enlarged or shrunk to 375 x 500, uint8 HWC."""
    import simplejpeg

    with Beton(source) as beton:
        decoded = [simplejpeg.decode_jpeg(beton.read(i % len(beton))) for i in range(min(count, len(beton)))]
    return [resized(decoded[i % len(decoded)], PHOTO) for i in range(count)]


def resized(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The photo resized to (height, width)."""
    return np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))
