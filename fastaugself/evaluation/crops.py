"""Random resized crops and flips of a split's photos, for the protocols that train on them.

The crop of a photo depends on (seed, epoch, its position in the split) and the order of the photos on (seed, epoch):
neither on the number of processes nor on where the training resumes.

Shape suffixes: B batch, C channels, H W, N photos, V views.
"""

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import RaggedBatch as Images
from fastaugself_kernels import ViewPolicy, augment, collate_images, sample_params
from fastaugself_kernels.collate import Indexed

from ..data.background import Background
from ..data.cores import available_cores
from ..data.loader import Loader
from ..data.order import epoch_batches, num_batches
from ..data.parallel import ordered_map
from ..data.ragged import RaggedBatch
from ..distributed import World
from ..errors import RunError, UsageError
from .datasets.folders import BetonImages
from .pixels import Color
from .splits import Images as SplitImages
from .splits import Joined, Split, Subset

Ids = NDArray[np.int64]


def policy(size: int) -> ViewPolicy:
    """torchvision's RandomResizedCrop at its defaults (8 to 100 % of the area) and a flip: what all papers train on."""
    return ViewPolicy(size=size, scale=(0.08, 1.0), flip=0.5, jitter=0.0, gray=0.0, blur=0.0)


class Crops(NamedTuple):
    """The crops of one forward pass.

    x_BCHW: normalised. labels_B: int64. ids_B: positions in the split. step: optimizer step, from 0. last: whether
    they are the last of this process in their step.
    """

    x_BCHW: Tensor
    labels_B: Tensor
    ids_B: Tensor
    step: int
    last: bool


class _Wanted(NamedTuple):
    ids_B: Ids
    epoch: int
    step: int
    last: bool


@dataclass(frozen=True)
class TrainingCrops:
    """The crops of a split's photos, epoch after epoch.

    batch_size: photos per optimizer step, over all processes; an incomplete last batch of an epoch is left out.
    forward: photos per forward pass. size: side of the crops in pixels. mean, std: of the normalisation. workers:
    decoding threads, 0 = one per core.

    Raises UsageError for a batch that the processes cannot share equally, and for one that is larger than the split.
    """

    split: Split
    world: World
    batch_size: int
    forward: int
    size: int
    mean: Color
    std: Color
    seed: int = 0
    dtype: torch.dtype = torch.float32
    workers: int = 0

    def __post_init__(self) -> None:
        size, count, processes = self.batch_size, len(self.split), self.world.size
        if size % processes:
            raise UsageError(
                f"--train-batch {size} must be a multiple of the number of processes {processes}: pass --train-batch "
                f"{-(-size // processes) * processes}"
            )
        if size > count:
            least = 2 * processes
            advice = f"pass --train-batch {count // processes * processes} or less" if count >= least else "add photos"
            raise UsageError(f"--train-batch {size} is larger than the {count} training photos: {advice}")

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return num_batches(len(self.split), self.batch_size)

    def steps(self, start: int, end: int) -> Generator[Crops]:
        """The crops of the optimizer steps from `start` to before `end`, on this process."""
        waiting: deque[_Wanted] = deque()

        def ids() -> Iterator[Ids]:
            for wanted in self._wanted(start, end):
                waiting.append(wanted)
                yield wanted.ids_B

        labels_N = torch.from_numpy(self.split.labels_N)
        photos = open_photos(self.split, forward=self.forward, world=self.world, workers=self.workers)
        try:
            with closing(photos.batches_of(ids())) as decoded:
                for images in decoded:
                    wanted = waiting.popleft()
                    ids_B = torch.from_numpy(wanted.ids_B)
                    labels_B = labels_N[ids_B].to(self.world.device, non_blocking=True)
                    x_BCHW = self._crops(images, ids_B.to(self.world.device), wanted.epoch)
                    yield Crops(x_BCHW, labels_B, ids_B, wanted.step, wanted.last)
        finally:
            photos.close()

    def _crops(self, images: Images, ids_B: Tensor, epoch: int) -> Tensor:
        params_VBP = sample_params(ids_B, images.sizes_B2, (policy(self.size),), seed=self.seed, epoch=epoch)
        x_VBCHW = augment(
            images.pixels, images.offsets_B, images.sizes_B2, params_VBP, size=self.size, mean=self.mean, std=self.std,
            dtype=self.dtype, blur_kernel=1,
        )  # fmt: skip
        crops_BCHW: Tensor = x_VBCHW[0]
        return crops_BCHW

    def _wanted(self, start: int, end: int) -> Iterator[_Wanted]:
        each, world = self.batch_size // self.world.size, self.world
        step = start
        while step < end:
            epoch, first = divmod(step, self.steps_per_epoch)
            batches = epoch_batches(
                len(self.split), each, seed=self.seed, epoch=epoch, rank=world.rank, world=world.size, start=first
            )
            for ids_B in batches:
                parts = np.split(ids_B, range(self.forward, each, self.forward))
                for i, part_B in enumerate(parts):
                    yield _Wanted(part_B, epoch, step, i == len(parts) - 1)
                step += 1
                if step >= end:
                    return


class Photos(Protocol):
    """Decoded photos of a split, on the device."""

    def batches_of(self, ids: Iterator[Ids]) -> Generator[Images]:
        """One batch for each array of positions in the split, in order; `ids` is taken ahead."""
        ...

    def close(self) -> None:
        """Ends the threads and closes the files."""
        ...


def open_photos(split: Split, *, forward: int, world: World, workers: int = 0) -> Photos:
    """The photos of a split: by the loader of training if all are in `.beton` files, else opened in threads."""
    count = workers or available_cores()
    sources = _in_files(split.images)
    if sources is None:
        return _Opened(split, world, count)
    files, ids_N = sources
    return _OfBeton(files, ids_N, forward, world, count)


class _OfBeton:
    """Photos of `.beton` files. ids_N: the sample id of each photo of the split."""

    def __init__(self, files: list[BetonImages], ids_N: Ids, forward: int, world: World, workers: int) -> None:
        self._ids_N = ids_N
        # A corrupt photo is not replaced, as in pretraining, but an error (`_intact`): each figure is over all photos.
        self._loader = Loader(
            [file.path for file in files], batch_size=forward, workers=workers, drop_last=False, max_corrupt=1.0,
            device=world.device,
        )  # fmt: skip

    def batches_of(self, ids: Iterator[Ids]) -> Generator[Images]:
        batches = self._loader.batches_of(self._ids_N[ids_B] for ids_B in ids)
        if self._loader.device.type == "cuda":  # where the loader sends ahead, on a stream of its own
            with closing(batches):
                yield from map(self._intact, batches)
            return
        with closing(batches), closing(Background(batches, depth=1, name="decode-ahead", about="photos")) as ahead:
            yield from map(self._intact, ahead)

    def _intact(self, photos: RaggedBatch) -> Images:
        """The photos for the kernels; RunError if the loader has replaced one that cannot be decoded."""
        if self._loader.corrupt:
            raise RunError(
                f"{self._loader.name} has a photo that cannot be decoded, which the warning above names: copy the file "
                "again, or write it again"
            )
        return Images(*photos)

    def close(self) -> None:
        self._loader.close()


class _Opened:
    """Photos of any kind, opened by threads: Pillow decodes without the interpreter's lock."""

    def __init__(self, split: Split, world: World, workers: int) -> None:
        self._images, self._device, self._workers = split.images, world.device, workers

    def batches_of(self, ids: Iterator[Ids]) -> Generator[Images]:
        lengths: deque[int] = deque()

        def indices() -> Generator[int]:
            for ids_B in ids:
                lengths.append(len(ids_B))
                yield from ids_B.tolist()

        def opened(index: int) -> Indexed:
            return Indexed(self._images.open(index), index)

        found = ordered_map(opened, indices(), workers=self._workers, ahead=4 * self._workers)
        with closing(found), closing(Background(_collated(found, lengths), depth=2, name="decode-ahead")) as ahead:
            for images in ahead:
                yield images.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Nothing stays open."""


def _collated(found: Generator[Indexed], lengths: deque[int]) -> Generator[Images]:
    """The photos in batches of these lengths."""
    items: list[Indexed] = []
    for item in found:
        items.append(item)
        if len(items) == lengths[0]:
            yield collate_images(items)
            items = []
            lengths.popleft()


def _in_files(images: SplitImages) -> tuple[list[BetonImages], Ids] | None:
    """The `.beton` files of a sequence of images and the sample id of each in the loader's numbering; None if others.

    The loader numbers the samples of several files consecutively.
    """
    parts = list(_flat(images, np.arange(len(images))))
    files: dict[BetonImages, int] = {}
    for base, _ in parts:
        if not isinstance(base, BetonImages):
            return None
        files.setdefault(base, sum(len(file) for file in files))
    return list(files), np.concatenate([ids_N + files[base] for base, ids_N in parts])  # type: ignore[index]


def _flat(images: SplitImages, ids_N: Ids) -> Iterator[tuple[SplitImages, Ids]]:
    """The collections that a sequence of images consists of, each with the positions taken from it, in order."""
    if isinstance(images, Subset):
        yield from _flat(images.images, images.indices[ids_N])
    elif isinstance(images, Joined):
        # Positions of both parts may alternate; runs of one part stay together.
        second_N = ids_N >= len(images.first)
        bounds = [0, *(np.flatnonzero(np.diff(second_N)) + 1).tolist(), len(ids_N)]
        for start, end in pairwise(bounds):
            if start == end:
                continue
            part_N = ids_N[start:end]
            inner = images.second if second_N[start] else images.first
            yield from _flat(inner, part_N - len(images.first) if second_N[start] else part_N)
    else:
        yield images, ids_N
