"""The contestants of `bench loader`, each built in a separate process from a name and a Task.

Three jobs: `decode` (whole photos, once or twice as two views need), `crops` (two random resized crops, uint8) and
`views` (two views with all of MoCo v2's augmentation, float32 and normalised). All read in file order, so that checks
compare the same photos.

Shape suffixes: N views, B batch, C channels, H W.
"""

import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastaugself_kernels import ViewPolicy, augment, sample_params

from ..data.beton.format import JPEG, Beton
from ..data.loader import Loader
from ..data.ragged import RaggedBatch
from . import photo_peers
from .photo_peers import MEAN, STD
from .remote import Racer

CHECKED = 128  # photos per check
PREFETCH = 2  # batches per worker, PyTorch's default
_REFERENCE_PHOTOS = 4  # photos whose views are compared with the oracle
Job = Literal["decode", "crops", "views"]


@dataclass(frozen=True)
class Task:
    """path: a .beton file. samples: number of samples, a multiple of `batch`. size: of the views. workers: threads or
    processes."""

    path: Path
    samples: int
    batch: int
    size: int
    workers: int


def build(name: str, task: Task) -> Racer:
    """Builds the contestant with this name. Raises ImportError if a library is missing."""
    torch.set_num_threads(task.workers)
    _, make = CONTESTANTS[name]
    return make(task)


def _ours(source: Literal["ffcv", "native"], with_views: bool) -> Callable[[Task], Racer]:
    def make(task: Task) -> Racer:
        loader = Loader(task.path, batch_size=task.batch, source=source, workers=task.workers)
        policies = (ViewPolicy.moco_v2(task.size),) * 2

        def views(batch: RaggedBatch, epoch: int, **exact: Any) -> tuple[Tensor, Tensor]:
            params = sample_params(batch.ids_B, batch.sizes_B2, policies, seed=0, epoch=epoch)
            size = task.size
            return augment(batch.pixels, batch.offsets_B, batch.sizes_B2, params, size=size, **exact), params

        def batches() -> Iterator[Any]:
            first = np.arange(task.batch)
            ids = ((start + first) % task.samples for start in itertools.count(0, task.batch))
            for n, batch in enumerate(loader.batches_of(ids)):  # endless: read-ahead would pause at an epoch's end
                yield views(batch, n * task.batch // task.samples) if with_views else batch
                del batch

        running = batches()
        if not with_views:
            return Racer(running, task.batch, lambda: _decoded(list(_some(running, task)), task))

        def check() -> dict[str, Any]:
            made = [x_VBCHW for x_VBCHW, _ in _some(running, task)]
            batch = loader.take(np.arange(task.batch))
            few = RaggedBatch(batch.pixels, *(t[:_REFERENCE_PHOTOS] for t in batch[1:]))
            exact: dict[str, Any] = {"rounding": "none", "mean": (0, 0, 0), "std": (1, 1, 1)}
            oracle, fast = (views(few, 0, backend=backend, **exact)[0] for backend in ("reference", "auto"))
            found = {"oracle_error": (oracle - fast).abs().max().item(), "crc32": [zlib.crc32(_bytes(x)) for x in made]}
            return found | statistics(x.flatten(0, 1) for x in made)

        return Racer(running, task.batch, check)

    return make


def _ffcv(job: Job) -> Callable[[Task], Racer]:
    def make(task: Task) -> Racer:
        try:
            from . import ffcv_peers
        except (ImportError, OSError) as error:
            raise ImportError(f"FFCV cannot be imported ({error}): `make setup` builds it") from None
        pipelines = {
            "decode": ffcv_peers.whole,
            "crops": lambda: ffcv_peers.crops(task.size),
            "views": lambda: ffcv_peers.views(task.size),
        }
        loader = ffcv_peers.make_loader(task.path, task.batch, task.workers, task.samples, pipelines[job])
        running = itertools.chain.from_iterable(iter(lambda: iter(loader), None))

        def whole() -> dict[str, Any]:
            found: dict[int, list[int]] = {}
            with Beton(task.path) as beton:
                ids = itertools.cycle(range(task.samples))
                for _ in range(task.batch):
                    next(ids)  # skip the warm-up batch
                for pair in _some(running, task):
                    for i, sample in zip(range(task.batch), ids, strict=False):
                        length = int(beton.sizes_N2[sample].astype(np.int64).prod()) * 3
                        found[sample] = [zlib.crc32(photos_BN[i, :length].numpy().data) for photos_BN in pair]
            return {"crc32": found}

        def pairs() -> dict[str, Any]:
            return statistics(torch.cat([_normalised(x) for x in pair]) for pair in _some(running, task))

        return Racer(running, task.batch, whole if job == "decode" else pairs)

    return make


class _TwoViews(torch.utils.data.Dataset):
    """Decodes each photo of a .beton file once and makes two views of it, like MoCo's TwoCropsTransform."""

    def __init__(self, task: Task, library: Literal["pil", "albumentationsx"]):
        self._beton, self._library = Beton(task.path), library
        self._view: Any = (
            photo_peers.pil(task.size) if library == "pil" else photo_peers.albumentationsx(task.size, "image")
        )
        self._decode = _pil_photo if library == "pil" else _opencv_photo

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        photo = self._decode(self._beton, i)
        return torch.from_numpy(self._view(photo)), torch.from_numpy(self._view(photo))

    def __len__(self) -> int:
        return self._beton.num_samples


def _dataloader(library: Literal["pil", "albumentationsx"]) -> Callable[[Task], Racer]:
    def make(task: Task) -> Racer:
        dataset = _TwoViews(task, library)
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=task.batch,
            sampler=itertools.cycle(range(task.samples)),  # endless: workers would pause at the end of an epoch
            num_workers=task.workers,
            prefetch_factor=PREFETCH,
            multiprocessing_context="fork",  # the default would be spawn, as this process was spawned
        )
        running = iter(loader)
        return Racer(running, task.batch, lambda: statistics(torch.cat(pair) for pair in _some(running, task)))

    return make


def _pil_photo(beton: Beton, i: int) -> Image.Image:
    if beton.modes_N[i] == JPEG:
        return Image.open(io.BytesIO(beton.read(i))).convert("RGB")
    height, width = beton.sizes_N2[i].tolist()
    return Image.frombytes("RGB", (width, height), beton.read(i))


def _opencv_photo(beton: Beton, i: int) -> np.ndarray:
    import cv2

    data = np.frombuffer(beton.read(i), np.uint8)
    if beton.modes_N[i] == JPEG:
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return data.reshape(*beton.sizes_N2[i].tolist(), 3)


def _some(batches: Iterator[Any], task: Task) -> Iterator[Any]:
    """The next whole batches, up to CHECKED photos."""
    return itertools.islice(batches, -(-min(CHECKED, task.samples) // task.batch))


def _bytes(x_VBCHW: Tensor) -> memoryview:
    return np.asarray(x_VBCHW.permute(0, 1, 3, 4, 2).contiguous()).data


def _decoded(batches: list[RaggedBatch], task: Task) -> dict[str, Any]:
    """Checksums of decoded photos, their mean difference from Pillow's (of 255), and the statistics of their crops."""
    found: dict[int, list[int]] = {}
    differences = []
    with Beton(task.path) as beton:
        for batch in batches:
            for sample, start, (height, width) in zip(
                batch.ids_B.tolist(), batch.offsets_B.tolist(), batch.sizes_B2.tolist(), strict=True
            ):
                pixels = batch.pixels[start : start + height * width * 3].numpy()
                found[sample] = [zlib.crc32(pixels.data)]
                if beton.modes_N[sample] == JPEG:
                    other = np.asarray(_pil_photo(beton, sample)).reshape(-1)
                    differences.append(float(np.abs(pixels.astype(np.int16) - other).mean()))
    policy = ViewPolicy(task.size, flip=0, jitter=0, gray=0, blur=0)

    def crops(batch: RaggedBatch) -> Tensor:
        params = sample_params(batch.ids_B, batch.sizes_B2, (policy,) * 2, seed=0, epoch=0)
        return augment(batch.pixels, batch.offsets_B, batch.sizes_B2, params, size=task.size).flatten(0, 1)

    return {"crc32": found, "pillow_error": max(differences, default=0.0), "crops": statistics(map(crops, batches))}


def _normalised(crops_BHWC: Tensor) -> Tensor:
    if crops_BHWC.dtype != torch.uint8:
        return crops_BHWC
    x_BHWC = (crops_BHWC / 255 - torch.from_numpy(MEAN)) / torch.from_numpy(STD)
    return x_BHWC.permute(0, 3, 1, 2)


def statistics(batches: Iterator[Tensor]) -> dict[str, Any]:
    """Statistics of batches of normalised views [N, 3, H, W].

    shape: of a view. mean, std: of each channel. gray: fraction of views without colour. detail: mean difference of
    neighbouring pixels, which depends on blur and antialiasing. count: number of views.
    """
    shape: tuple[int, ...] = ()
    count, means, squares, gray, detail = 0, np.zeros(3), np.zeros(3), 0, 0.0
    mean_C11, std_C11 = (torch.from_numpy(values).view(3, 1, 1) for values in (MEAN, STD))
    for x_NCHW in batches:
        shape, colours_NCHW = tuple(x_NCHW.shape[1:]), x_NCHW * std_C11 + mean_C11
        count += len(x_NCHW)
        means += x_NCHW.mean((2, 3)).sum(0).numpy()
        squares += x_NCHW.square().mean((2, 3)).sum(0).numpy()
        gray += int(((colours_NCHW.amax(1) - colours_NCHW.amin(1)).amax((1, 2)) < 0.02).sum())
        detail += x_NCHW.diff(dim=3).abs().mean((1, 2, 3)).sum().item()
    mean = means / count
    return {
        "shape": shape,
        "mean": mean.tolist(),
        "std": np.sqrt(squares / count - mean**2).tolist(),
        "gray": gray / count,
        "detail": detail / count,
        "count": count,
    }


# Job and builder by name. Ours come first, and of ours the reader that is used if both are available.
CONTESTANTS: dict[str, tuple[Job, Callable[[Task], Racer]]] = {
    "fastaugself-ffcv, decoded": ("decode", _ours("ffcv", False)),
    "fastaugself-native, decoded": ("decode", _ours("native", False)),
    "ffcv-twice": ("decode", _ffcv("decode")),
    "ffcv-twice, its crops": ("crops", _ffcv("crops")),
    "fastaugself-ffcv": ("views", _ours("ffcv", True)),
    "fastaugself-native": ("views", _ours("native", True)),
    "ffcv-ssl design": ("views", _ffcv("views")),
    "dataloader-pil": ("views", _dataloader("pil")),
    "dataloader-albumentationsx": ("views", _dataloader("albumentationsx")),
}
