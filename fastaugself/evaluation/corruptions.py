"""The fifteen corruptions of ImageNet-C, computed from any photos (Hendrycks & Dietterich 2019, arXiv 1903.12261).

They are those of imagecorruptions-imaug, the maintained copy of bethgelab's imagecorruptions. Random numbers depend on
(seed, pixels, corruption, severity) alone, so that a photo is corrupted in the same way in every run, order and subset.

Shape suffixes: H W.
"""

import hashlib
import importlib.metadata
import io
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UsageError
from ..probes.robustness import CORRUPTIONS
from .cache import key_of
from .pixels import Filter, prepare
from .splits import Images

PACKAGE = "imagecorruptions-imaug"
SMALLEST = 32  # pixels, of the package
QUALITY = 85  # of the JPEG files of ImageNet-C
KEPT = 65_536  # files of one corruption and severity; 30 KB each at 224 px
_SEEDED = ("impulse_noise", "glass_blur")  # draw from a generator of their own
_DRAWN = ("gaussian_noise", "shot_noise", "motion_blur", "snow", "frost", "fog", "elastic_transform")
_global_generator = threading.Lock()  # NumPy's, from which those of _DRAWN draw; the others draw nothing


@cache
def package() -> Any:
    """The package of the corruptions; UsageError if it is missing or cannot be imported."""
    try:
        importlib.metadata.version(PACKAGE)
        import imagecorruptions
    except Exception as error:
        raise UsageError(
            f"corruptions are computed by {PACKAGE}, which is missing or cannot be imported ({error}): pip install "
            f"'fastaugself[robustness]' && pip install --no-deps {PACKAGE}"
        ) from None
    return imagecorruptions


def corrupt(pixels: NDArray[np.uint8], name: str, severity: int, *, seed: int) -> NDArray[np.uint8]:
    """The pixels with a corruption, uint8 [H, W, 3].

    pixels: uint8 [H, W, 3], at least 32 x 32. name: one of CORRUPTIONS. severity: 1 to 5.
    """
    digest = hashlib.blake2b(f"{seed} {name} {severity} {pixels.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    words = np.frombuffer(digest.digest(), np.uint32)
    if name in _SEEDED:
        return _applied(pixels, name, severity, seed=int(words[0] >> 1))
    if name not in _DRAWN:
        return _applied(pixels, name, severity)
    with _global_generator:
        state = np.random.get_state()
        np.random.seed(words)
        try:
            return _applied(pixels, name, severity)
        finally:
            np.random.set_state(state)


def _applied(pixels: NDArray[np.uint8], name: str, severity: int, **options: int) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = package().corrupt(pixels, corruption_name=name, severity=severity, **options)
    return found


@dataclass(frozen=True)
class Corrupted:
    """The images of a sequence, cropped and corrupted as ImageNet-C's files are.

    side: of the corrupted square in pixels, 224 as published: radii and noise are in its pixels. resize: shorter side
    of the photo before the central crop of that square. filter: of that resize. The result goes through JPEG of
    quality 85, as the published files. kept: where files are kept, so that several models corrupt a photo once.
    """

    images: Images
    name: str
    severity: int
    seed: int
    side: int
    resize: int
    filter: Filter = "bicubic"
    kept: dict[int, bytes] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Image.Image:
        data = self.kept.get(index) if self.kept is not None else None
        if data is None:
            pixels = prepare(self.images.open(index), self.side, self.resize, self.filter)
            file = io.BytesIO()
            corrupted = Image.fromarray(corrupt(pixels, self.name, self.severity, seed=self.seed))
            corrupted.save(file, "JPEG", quality=QUALITY)
            data = file.getvalue()
            if self.kept is not None and len(self.kept) < KEPT:
                self.kept[index] = data
        return Image.open(io.BytesIO(data)).convert("RGB")

    def digest(self, memo: Path | None) -> str:
        made_by = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        options = (self.name, self.severity, self.seed, self.side, self.resize, self.filter)
        return key_of("corrupted-1", made_by, repr(options), self.images.digest(memo))


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The corruptions of these names; ("all",) is all fifteen. Raises UsageError for an unknown name."""
    if names == ("all",):
        return CORRUPTIONS
    for name in names:
        if name not in CORRUPTIONS:
            raise UsageError(f"unknown corruption {name}: pass --corruptions all, or some of {', '.join(CORRUPTIONS)}")
    return tuple(dict.fromkeys(names))
