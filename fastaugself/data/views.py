"""Views with their parameters for any training loop: from photos of any kind, in an addressed order.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, n descriptor columns, 2 = (height, width).
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastaugself_kernels import (
    AugmentViews,
    Targets,
    ViewPolicy,
    WithIndex,
    augself_targets,
    collate_images,
    descriptors,
)
from fastaugself_kernels import RaggedBatch as Images
from fastaugself_kernels.collate import Indexed

from .. import distributed
from ..distributed import DeviceName, resolve_device
from ..errors import UsageError
from .cores import available_cores
from .dataset import is_pattern
from .inputs.convert import ensure_beton
from .inputs.opening import read_rgb
from .loader import BatchTooLarge, Loader
from .order import Order, epoch_batches, num_batches
from .parallel import ordered_map


@dataclass(frozen=True)
class ViewBatch:
    """The views of a batch of photos, with their augmentation parameters.

    views: V tensors [B, 3, H, W], normalised, channels-last. params_VBP: float32, columns as in
    `fastaugself_kernels.COLUMNS`. sizes_B2: int32 (height, width) of the photos. labels_B: int64, -1 without a label.
    ids_B: int64, index of each photo in the data set. shift_VB3: CASSLE's colour shift, None unless it was asked for.
    policies: one per view.
    """

    views: tuple[Tensor, ...]
    params_VBP: Tensor
    sizes_B2: Tensor
    labels_B: Tensor
    ids_B: Tensor
    shift_VB3: Tensor | None
    policies: tuple[ViewPolicy, ...]
    _stacked: Tensor | None = None

    @property
    def views_VBCHW(self) -> Tensor:
        """All views as one tensor. Raises ValueError if they have different sizes."""
        if self._stacked is None:
            sizes = ", ".join(str(policy.size) for policy in self.policies)
            raise ValueError(f"the views have different sizes ({sizes} pixels); use batch.views, one tensor for each")
        return self._stacked

    def targets(self, *, mode: Literal["published", "fixed"] = "published") -> tuple[Targets, Targets]:
        """AugSelf's targets of the first two views: view 1 - view 2, and view 2 - view 1; see `augself_targets`."""
        return augself_targets(self.params_VBP, self.sizes_B2, self.policies, mode=mode)

    def descriptors(self, *, include: Sequence[str] | None = None) -> Tensor:
        """The parameters of each view as CASSLE's condition, float32 [V, B, n]; see `descriptors` of the kernels."""
        return descriptors(self.params_VBP, self.sizes_B2, self.policies, self.shift_VB3, include=include)


class _Photos(Protocol):
    """Decoded photos by epoch, on the device."""

    classes: list[str]
    num_samples: int
    batches: int

    def epoch(self, epoch: int, start: int = 0) -> Generator[Any]:
        """The batches of an epoch, starting with batch `start`."""

    def close(self) -> None:
        """Ends the threads and closes the files."""


class ViewLoader:
    """Iterates over batches of views, for a training loop of your own; every iteration is the next epoch.

    photos: a folder of photos (one subfolder per class; converted once to a `.beton` file beside it), a `.beton` file,
    a pattern or list of these, a list of photos' paths, or any map-style data set whose items are images or (image,
    label), as `fastaugself_kernels.collate_images` takes them. policies: one `ViewPolicy` per view, or one for both of
    two views. size: side of the views in pixels, instead of that of the policies.

    batch_size: photos per batch, on each process. seed: of order and views, which depend on nothing else but the epoch
    and the photo: the same on any number of processes and workers. rank, world: default those of torch.distributed.
    workers: decoding threads, 0 for one per core; for a data set, worker processes, 0 for none. order: random,
    quasi-random (for slow disks; `.beton` only) or sequential. drop_last: drop the incomplete batch of an epoch.
    device: of the views. options: of `fastaugself_kernels.AugmentViews`, such as `color_shift=True`, `dtype` or `std`.

    Attributes. classes: names by label, empty if unknown. num_samples: photos. epoch: of the next iteration.

    Raises UsageError for photos and options that cannot work, RunError for photos that cannot be read.
    """

    def __init__(
        self,
        photos: Any,
        policies: ViewPolicy | Sequence[ViewPolicy],
        *,
        batch_size: int,
        size: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        workers: int = 0,
        order: Order = "random",
        drop_last: bool = True,
        device: DeviceName | torch.device = "auto",
        source: Literal["auto", "ffcv", "native"] = "auto",
        **options: Any,
    ) -> None:
        self.augment = AugmentViews(policies, size=size, seed=seed, **options)
        self.device = device if isinstance(device, torch.device) else resolve_device(device)
        self.augment.to(self.device)
        common: dict[str, Any] = {
            "batch_size": batch_size, "seed": seed, "workers": workers, "order": order, "drop_last": drop_last,
            "rank": distributed.rank() if rank is None else rank,
            "world": distributed.world_size() if world is None else world,
        }  # fmt: skip
        files = beton_files(photos)
        self.photos: _Photos
        if files is not None:
            self.photos = Loader(files, device=self.device, source=source, **common)
        else:
            self.photos = MapPhotos(photos, **common)
        self.classes, self.num_samples, self.epoch, self._start = self.photos.classes, self.photos.num_samples, 0, 0

    def __len__(self) -> int:
        """Batches per epoch on this process."""
        return self.photos.batches

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Sets the epoch of the next iteration, counted from 0, and its first batch, to resume in the middle."""
        if epoch < 0 or not 0 <= start <= len(self):
            raise UsageError(
                f"epoch must be at least 0 and start from 0 to {len(self)} batches, got {epoch} and {start}"
            )
        self.epoch, self._start = epoch, start

    def __iter__(self) -> Iterator[ViewBatch]:
        epoch, start = self.epoch, self._start
        self.epoch, self._start = epoch + 1, 0
        with closing(self.photos.epoch(epoch, start)) as batches:
            for photos in batches:
                yield self._views(photos, epoch)

    def _views(self, photos: Any, epoch: int) -> ViewBatch:
        batch = Images(*photos).to(self.device, non_blocking=True)
        made = self.augment(batch, epoch=epoch)
        x, params_VBP, shift_VB3 = made if self.augment.color_shift else (*made, None)
        stacked = x if isinstance(x, Tensor) else None
        # Copies: on CUDA all tensors of a batch share one buffer, so keeping labels or ids would keep the pixels.
        sizes_B2, labels_B, ids_B = (t.clone() for t in (batch.sizes_B2, batch.labels_B, photos.ids_B.to(self.device)))
        return ViewBatch(
            tuple(x), params_VBP, sizes_B2, labels_B, ids_B, shift_VB3, self.augment.policies, _stacked=stacked
        )

    def close(self) -> None:
        """Ends the threads and closes the files."""
        self.photos.close()

    def __enter__(self) -> "ViewLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def beton_files(photos: Any) -> Path | tuple[Path, ...] | None:
    """The `.beton` files that `photos` names, None if it is a list of photos or a data set.

    A folder is converted once to the `.beton` beside it.
    """
    if isinstance(photos, str | os.PathLike):
        path = Path(photos)
        if is_pattern(path):
            return path
        if path.is_file() and path.suffix != ".beton":
            raise UsageError(f"{path} is not a .beton file; pass [{str(path)!r}, ...] for photos, or their folder")
        return ensure_beton(path)
    if isinstance(photos, Sequence) and photos and all(isinstance(part, str | os.PathLike) for part in photos):
        parts = [Path(part) for part in photos]
        if any(part.suffix == ".beton" or part.is_dir() for part in parts):
            return tuple(ensure_beton(part) for part in parts)
    return None


class MapPhotos:
    """Photos of a map-style data set, or of a list of paths.

    Arguments as for `ViewLoader`, attributes as of `Loader`.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        workers: int,
        order: Order,
        drop_last: bool,
    ) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise UsageError(
                f"photos are {type(dataset).__name__}; pass a folder, a .beton file, a list of paths, or a data set "
                "with __getitem__ and __len__"
            )
        if not len(dataset):
            raise UsageError("photos are empty; pass at least one")
        if order == "quasi-random":
            raise UsageError("order='quasi-random' is for .beton files; pass order='random', or write a .beton file")
        self.dataset, self.seed, self.rank, self.world, self.workers = dataset, seed, rank, world, workers
        self.batch_size, self.order, self.drop_last = batch_size, order, drop_last
        self.num_samples = len(dataset)
        self.classes: list[str] = list(getattr(dataset, "classes", []) or [])
        self.batches = num_batches(self.num_samples, batch_size, rank=rank, world=world, drop_last=drop_last)
        if not self.batches:
            raise BatchTooLarge(
                f"a batch of {batch_size} on each of {world} processes is larger than the {self.num_samples} photos; "
                f"pass a smaller batch_size, or drop_last=False",
                self.num_samples,
            )
        self._paths = (
            all(isinstance(item, str | os.PathLike) for item in dataset) if isinstance(dataset, list | tuple) else False
        )

    def epoch(self, epoch: int, start: int = 0) -> Generator[Images]:
        """The batches of an epoch, on the CPU, starting with batch `start`."""
        ids = epoch_batches(
            self.num_samples, self.batch_size, seed=self.seed, epoch=epoch, rank=self.rank, world=self.world,
            order=self.order, drop_last=self.drop_last, start=start,
        )  # fmt: skip
        return self._of_paths(ids) if self._paths else self._of_dataset(ids)

    def _of_paths(self, ids: Iterator[NDArray[np.int64]]) -> Generator[Images]:
        """Threads open the photos: Pillow decodes without the interpreter's lock."""

        def opened(index: int) -> Indexed:
            return Indexed(read_rgb(Path(self.dataset[index])), index)

        lengths: list[int] = []

        def indices() -> Generator[int]:
            for ids_B in ids:
                lengths.append(len(ids_B))
                yield from ids_B.tolist()

        workers, items = self.workers or available_cores(), []
        with closing(ordered_map(opened, indices(), workers=workers, ahead=2 * self.batch_size)) as found:
            for item in found:
                items.append(item)
                if len(items) == lengths[0]:
                    yield collate_images(items)
                    items = []
                    del lengths[0]

    def _of_dataset(self, ids: Iterator[NDArray[np.int64]]) -> Generator[Images]:
        loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
            WithIndex(self.dataset),  # type: ignore[arg-type]
            batch_sampler=[ids_B.tolist() for ids_B in ids],
            collate_fn=collate_images,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )
        yield from loader

    def close(self) -> None:
        """Nothing stays open between epochs."""
