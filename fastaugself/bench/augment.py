"""Views per second of MoCo v2's augmentation, next to what people use today.

Every contestant makes 224 px views of the same real photos of 375 x 500 with random resized crop (antialiased where
the library can), flip, colour jitter in random order, grayscale, blur and normalisation at MoCo v2's ranges and
probabilities, parameters drawn anew for every view. Before the timing, ours is held to the oracle, and each peer's
views to the colour statistics of ours.
"""

import contextlib
import importlib.metadata
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastaugself_kernels import ViewPolicy, augment, sample_params
from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from ..data.beton import Beton
from ..data.demo import load_photos
from ..errors import RunError
from . import photo_peers
from .harness import Contestant, measure, ratios, record, write_json

HEIGHT, WIDTH = 375, 500
KORNIA_BATCH = 32
COMPARED = 256  # views behind the statistics
TOLERANCE = 0.15  # of a channel's mean and standard deviation, normalised
Views = Callable[[], Tensor]


def augment_benchmark(
    json: Path | None = None,
    size: int = 224,
    photos: int = 64,
    rounds: int = 7,
    seconds: float = 1.0,
    device: str = "auto",
    source: Path | None = None,
) -> None:
    """Views per second against the augmentation libraries that are installed.

    Args:
        json: File for the result.
        size: Side of the views in pixels.
        photos: Photos in a batch; each gives two views.
        rounds: Rounds in which the contestants take turns.
        seconds: Seconds of each contestant in a round.
        device: cpu (one thread), cuda, or auto for CUDA where there is one.
        source: A .beton file with the photos to use, resized to 375 x 500, instead of those of scikit-image.
    """
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    if where.type == "cpu":
        torch.set_num_threads(1)
    images = natural_photos(photos) if source is None else resized_photos(source, photos)
    console = Console()
    ours = _ours(images, size, where)
    makers: dict[str, Callable[[list[np.ndarray], int], tuple[Views, int]]] = (
        {"kornia": _kornia(where)}
        if where.type == "cuda"
        else {"pil": _pil, "opencv": _opencv, "albumentationsx": _albumentationsx, "kornia": _kornia(where)}
    )
    contestants = [ours]
    expected = _statistics(_some_views(ours.call, ours.units))
    for name, make in makers.items():
        try:
            call, units = make(images, size)
        except ImportError as error:
            console.print(f"{name}: left out, {error}", markup=False)
            continue
        views = _some_views(call, units)
        difference = (_statistics(views) - expected).abs().max().item()
        if views.shape[1:] != (3, size, size) or difference > TOLERANCE:
            console.print(f"{name}: left out, its views differ from ours ({tuple(views.shape)}, {difference:.2f})")
            continue
        contestants.append(Contestant(name, call, units))
    rows, _ = measure(contestants, device=where, rounds=rounds, seconds=seconds)
    compared = ratios(rows, ours.name)
    table = Table(
        "", "views/s" if where.type == "cuda" else "views/s, one core", "ours is faster by", "lowest", "highest"
    )
    for row in rows:
        ratio = compared.get(row.name)
        cells = [f"{ratio[key]:.1f}x" for key in ("median", "min", "max")] if ratio else ["", "", ""]
        table.add_row(row.name, f"{row.rate:,.0f}", *cells)
    console.print(table)
    if json is not None:
        config = {"photos": [HEIGHT, WIDTH], "size": size, "batch": photos, "views": 2, "rounds": rounds,
                  "seconds": seconds, "threads": 1 if where.type == "cpu" else None, "peers": _versions()}  # fmt: skip
        write_json(json, record(rows, unit="views_per_s", config=config, ratios=compared, device=where))


def _versions() -> dict[str, str]:
    """Versions of the peers that are installed."""
    found = {}
    for name in ("pillow", "opencv-python-headless", "albumentationsx", "kornia"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def natural_photos(count: int) -> list[np.ndarray]:
    """Crops of 375 x 500 of the real photos that come with scikit-image and scikit-learn, uint8 HWC."""
    large = [p for p in load_photos().values() if p.width >= WIDTH and p.height >= HEIGHT]
    draw = random.Random(0)
    found = []
    for i in range(count):
        photo = large[i % len(large)]
        left, top = draw.randint(0, photo.width - WIDTH), draw.randint(0, photo.height - HEIGHT)
        found.append(np.ascontiguousarray(np.asarray(photo)[top : top + HEIGHT, left : left + WIDTH]))
    return found


def resized_photos(source: Path, count: int) -> list[np.ndarray]:
    """The first photos of a .beton file, enlarged or shrunk to 375 x 500, uint8 HWC."""
    import simplejpeg

    with Beton(source) as beton:
        decoded = [simplejpeg.decode_jpeg(beton.read(i % len(beton))) for i in range(count)]
    return [np.asarray(Image.fromarray(x).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) for x in decoded]


def _ours(images: list[np.ndarray], size: int, device: torch.device) -> Contestant:
    pixels = torch.from_numpy(np.stack(images))
    ids, sizes = torch.arange(len(images)), torch.tensor([[HEIGHT, WIDTH]] * len(images))
    policies = (ViewPolicy.moco_v2(size),) * 2
    few = sample_params(ids[:4], sizes[:4], policies, seed=1, epoch=0)
    exact: dict[str, Any] = {"size": size, "rounding": "none", "mean": (0, 0, 0), "std": (1, 1, 1)}
    oracle = augment(pixels[:4], None, sizes[:4], few, backend="reference", **exact)
    source = [t.to(device) for t in (pixels, ids, sizes)]
    got = augment(source[0][:4], None, source[2][:4], few.to(device), **exact).cpu()
    error = (got - oracle).abs().max().item()
    if error > 1e-5:
        raise RunError(f"our views differ from the oracle by {error:.1e}; nothing is timed")
    epoch = 0

    def call() -> Tensor:
        nonlocal epoch
        epoch += 1
        params = sample_params(source[1], source[2], policies, seed=0, epoch=epoch)
        return augment(source[0], None, source[2], params, size=size).flatten(0, 1)

    return Contestant("fastaugself-triton" if device.type == "cuda" else "fastaugself-numba", call, 2 * len(images))


def _some_views(call: Views, units: int) -> Tensor:
    """Views enough to tell two augmentations apart by their statistics."""
    return torch.cat([call() for _ in range(math.ceil(COMPARED / units))])


def _statistics(views: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over all views."""
    x = views.float()
    return torch.stack([x.mean((0, 2, 3)), x.std((0, 2, 3))]).cpu()


def _one_by_one(images: list[np.ndarray], view: Callable[[int], np.ndarray]) -> tuple[Views, int]:
    """Views of the photos in turn, 8 a call, as one tensor."""
    position = 0

    def call() -> Tensor:
        nonlocal position
        made = [view((position + i) % len(images)) for i in range(8)]
        position += 8
        return torch.from_numpy(np.stack(made))

    return call, 8


def _pil(images: list[np.ndarray], size: int) -> tuple[Views, int]:
    pictures, view = [Image.fromarray(image) for image in images], photo_peers.pil(size)
    return _one_by_one(images, lambda i: view(pictures[i]))


def _opencv(images: list[np.ndarray], size: int) -> tuple[Views, int]:
    view = photo_peers.opencv(size)
    return _one_by_one(images, lambda i: view(images[i]))


def _albumentationsx(images: list[np.ndarray], size: int) -> tuple[Views, int]:
    view = photo_peers.albumentationsx(size, "image")
    return _one_by_one(images, lambda i: view(images[i]))


def _kornia(device: torch.device) -> Callable[[list[np.ndarray], int], tuple[Views, int]]:
    def make(images: list[np.ndarray], size: int) -> tuple[Views, int]:
        try:
            import kornia.augmentation as K
        except ImportError as error:
            raise ImportError(f"pip install --no-deps kornia kornia-rs ({error})") from None
        pipeline = K.AugmentationSequential(
            K.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
            K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5),
            K.RandomHorizontalFlip(p=0.5),
            K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
            data_keys=["input"],
            same_on_batch=False,
        )
        batches = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().to(device).split(KORNIA_BATCH)
        position = 0

        def call() -> Tensor:
            nonlocal position
            position += 1
            with torch.no_grad():
                views: Tensor = pipeline(batches[position % len(batches)].float().div_(255))
            return views

        return call, len(batches[0])

    return make
