"""Decoded batches of a `.beton` file, in an order that depends on (seed, epoch, position) alone.

Shape suffixes: B images of a batch, N samples, 2 = (height, width).
"""

import logging
import os
import typing
import weakref
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import RunError, UsageError
from . import ffcv_source, manifest, sidecar
from .beton import Beton
from .canvas import Canvas
from .cores import available_cores
from .native import NativeSource, decode_into
from .order import Order, epoch_batches, num_batches
from .source import Packed, Source

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


class Loader:
    """One rank's batches of a `.beton` file, each photo decoded once, a few batches ahead of the consumer.

    path: a `.beton` file. batch_size: per rank. seed: of the order. rank, world: this process among the training's.
    source: who reads and decodes: "ffcv", "native" (simplejpeg), or "auto": FFCV where it can be used. Both give the
    same pixels in the same order. workers: decoding threads, 0 for all cores this rank may use. order: "random",
    "quasi-random" for disks that are slow at random access, or "sequential" (order.py). drop_last: full global batches
    only; else every sample exactly once. device: where the batches are to be.

    num_samples, batches: samples of the file; batches of an epoch of this rank. classes: names by label.
    sizes_N2, labels_N: int32 (height, width) and int64 of every sample, by sample id.
    source, source_reason: the reader in use, and why "auto" did not take FFCV ("" if it did).

    Raises UsageError for wrong use and missing packages, RunError for a damaged file, both before anything is decoded.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        source: Literal["auto", "ffcv", "native"] = "auto",
        workers: int = 0,
        order: Order = "random",
        drop_last: bool = True,
        device: torch.device = CPU,
    ):
        if source not in ("auto", "ffcv", "native"):
            raise UsageError(f"source is {source!r}, expected auto, ffcv or native")
        if order not in typing.get_args(Order):
            raise UsageError(f"order is {order!r}, expected {', '.join(typing.get_args(Order))}")
        if workers < 0:
            raise UsageError(f"workers is {workers}, expected a number of threads, or 0 for one a core")
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.order, self.drop_last, self.device = order, drop_last, device
        self._beton = Beton(path)
        self._epochs: weakref.WeakSet[Generator[Canvas]] = weakref.WeakSet()
        try:
            self.path, self.num_samples = self._beton.path, self._beton.num_samples
            self.sizes_N2, self.labels_N = self._beton.sizes_N2, self._beton.labels_N
            self.batches = num_batches(self.num_samples, batch_size, rank=rank, world=world, drop_last=drop_last)
            if drop_last and not self.batches:
                whole = f"{batch_size * world}" + (f" ({batch_size} on each of {world} ranks)" if world > 1 else "")
                raise UsageError(
                    f"a batch of {whole} is larger than the {self.num_samples} photos of {self.path}: "
                    f"pass --batch-size {self.num_samples // world * world or 1} or less, or more photos"
                )
            self.classes = self._read_classes()
            self.source, self.source_reason = _choose(source)
            reader = ffcv_source.FfcvSource if self.source == "ffcv" else NativeSource
            self._source: Source = reader(self._beton, workers=workers or available_cores(), pin=device.type == "cuda")
        except BaseException:
            self._beton.close()
            raise

    def epoch(self, epoch: int, start: int = 0) -> Generator[Canvas]:
        """The batches of an epoch from batch `start` on: each a Canvas on `device` that is the caller's to keep.

        Nothing is read before the first `next()`. Breaking off, an exception in the loop and `close()` of the generator
        end the threads before they return.

        Raises UsageError for a `start` outside the epoch, RunError while iterating for a photo that cannot be decoded
        and for a file that was changed or lost.
        """
        ids = epoch_batches(
            self.num_samples,
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world=self.world,
            order=self.order,
            drop_last=self.drop_last,
            start=start,
        )
        canvases = self._canvases(ids)
        if self.device.type == "cuda":
            from .transfer import to_cuda

            canvases = to_cuda(canvases, self.device)
        self._epochs.add(canvases)
        return canvases

    def _canvases(self, ids: Iterator[NDArray[np.int64]]) -> Generator[Canvas]:
        self._beton.check_unchanged()
        with closing(self._source.batches(ids)) as batches:
            for packed in batches:
                yield self._canvas(packed)
                del packed  # else two batches would be kept here while the next one is waited for

    def _canvas(self, packed: Packed) -> Canvas:
        if packed.failed:
            raise RunError(self._describe(packed))
        return Canvas(
            pixels=packed.pixels,
            offsets_B=torch.from_numpy(packed.offsets_B),
            sizes_B2=torch.from_numpy(self.sizes_N2[packed.ids_B]),
            labels_B=torch.from_numpy(self.labels_N[packed.ids_B]),
            ids_B=torch.from_numpy(packed.ids_B),
        )

    def _describe(self, packed: Packed) -> str:
        """What is wrong with the first sample that failed, by all its names."""
        sample = int(packed.ids_B[packed.failed[0]])
        size = int(np.prod(self.sizes_N2[sample], dtype=np.int64)) * 3
        why = decode_into(self._beton, sample, np.empty(size, np.uint8)) or "its decoder reported an error"
        source = manifest.source_name(self._beton, sample)
        name = f" ({source})" if source else ""
        others = f", and {len(packed.failed) - 1} more of its batch" if len(packed.failed) > 1 else ""
        return (
            f"{self.path}: sample {sample}{name} cannot be decoded{others}: {why}; the file is damaged, copy or "
            f"write it again"
        )

    def _read_classes(self) -> list[str]:
        found = sidecar.read(self._beton, columns=False)
        if found is not None and len(found.classes) > self.labels_N.max():
            return found.classes
        return [str(label) for label in range(int(self.labels_N.max()) + 1)]

    @property
    def columns(self) -> dict[str, list[float]]:
        """Further known values of every sample by name, by sample id: those of the sidecar, read anew."""
        found = sidecar.read(self._beton)
        return found.columns if found else {}

    def close(self) -> None:
        """Ends every epoch that is still running and lets go of the file."""
        for epoch in list(self._epochs):
            epoch.close()
        self._source.close()
        self._beton.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _choose(source: Literal["auto", "ffcv", "native"]) -> tuple[Literal["ffcv", "native"], str]:
    if source != "auto":
        return source, ""
    reason = ffcv_source.why_not()
    if reason is None:
        return "ffcv", ""
    log.info("reading without FFCV: %s", reason)
    return "native", reason
