"""The data loader: decoded batches from `.beton` files, in an order that depends only on (seed, epoch, position).

Shape suffixes: B batch, N all samples, 2 = (height, width).
"""

import logging
import typing
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from .background import Background
from .cores import available_cores
from .dataset import Dataset, Paths
from .faults import Faults
from .order import Order, epoch_batches, num_batches
from .ragged import RaggedBatch
from .readahead import distance, read_ahead
from .readers import ffcv as ffcv_source
from .readers.base import Buffers, Decode, OwnMemory, Source
from .readers.native import NativeSource

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


class BatchTooLarge(UsageError):
    """The global batch is larger than the data set of `num_samples` samples."""

    def __init__(self, message: str, num_samples: int) -> None:
        super().__init__(message)
        self.num_samples = num_samples


class Loader:
    """Loads one rank's batches from `.beton` files; each photo is decoded once, a few batches ahead of the consumer.

    paths: a `.beton` file, a pattern such as `shards/*.beton`, or a list of these (dataset.py defines the sample ids).
    batch_size: per rank. seed: random seed of the order. rank, world: rank of this process and number of ranks.
    source: the reader: "ffcv", "native" (simplejpeg), or "auto" (FFCV if it is available); both give identical pixels
    in the same order. decode: "cpu", or "nvimgcodec" to decode on the GPU. workers: decoding threads, 0 for all cores
    available to this rank. order: "random", "quasi-random" for disks that are slow at random access, or "sequential"
    (order.py). drop_last: drop the incomplete global batch at the end of an epoch; False: see each sample exactly once.
    max_corrupt: maximum fraction of samples that may be corrupt; each is replaced by the next intact sample of its
    file. device: the device of the returned batches.

    Attributes. name: name of the data set, for messages. num_samples: samples in the data set. batches: batches per
    epoch on this rank. classes, known_classes: as of Dataset. sizes_N2, labels_N: int32 (height, width) in pixels and
    int64 label of each sample, by sample id. fingerprint: checksum of these two.
    source: the reader in use. source_reason: why "auto" did not choose FFCV, "" if it did.

    Raises UsageError for invalid arguments and missing packages, RunError for a damaged file, before anything is
    decoded.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        source: Literal["auto", "ffcv", "native"] = "auto",
        decode: Decode = "cpu",
        workers: int = 0,
        order: Order = "random",
        drop_last: bool = True,
        max_corrupt: float = 0.001,
        device: torch.device = CPU,
    ):
        if source not in ("auto", "ffcv", "native"):
            raise UsageError(f"source is {source!r}, expected auto, ffcv or native")
        if decode not in typing.get_args(Decode):
            raise UsageError(f"decode is {decode!r}, expected {' or '.join(typing.get_args(Decode))}")
        if order not in typing.get_args(Order):
            raise UsageError(f"order is {order!r}, expected {', '.join(typing.get_args(Order))}")
        if workers < 0:
            raise UsageError(f"workers is {workers}, expected a number of threads, or 0 for one per core")
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.order, self.drop_last, self.device, self.decode = order, drop_last, device, decode
        self._dataset = Dataset(paths)
        self._epochs: weakref.WeakSet[Generator[RaggedBatch]] = weakref.WeakSet()
        try:
            data = self._dataset
            self.name, self.num_samples = data.name, data.num_samples
            self.classes, self.known_classes = data.classes, data.known_classes
            self.sizes_N2, self.labels_N, self.fingerprint = data.sizes_N2, data.labels_N, data.fingerprint
            self.batches = num_batches(self.num_samples, batch_size, rank=rank, world=world, drop_last=drop_last)
            if drop_last and not self.batches:
                whole = f"{batch_size * world}" + (f" ({batch_size} on each of {world} ranks)" if world > 1 else "")
                most = self.num_samples // world
                raise BatchTooLarge(
                    f"a batch of {whole} is larger than the {self.num_samples} photos of {self.name}: pass "
                    + (f"a batch size of {most} or less" if most else f"at least {world} photos, one for each rank"),
                    self.num_samples,
                )
            self._faults = Faults(data, max_corrupt)
            self._source = self._make_source(source, workers or available_cores())
        except BaseException:
            self._dataset.close()
            raise

    def _make_source(self, wanted: Literal["auto", "ffcv", "native"], workers: int) -> Source:
        self.source: Literal["ffcv", "native"]
        if self.decode == "nvimgcodec":
            from .readers.nvimgcodec import NvimgcodecSource

            if wanted == "ffcv":
                raise UsageError("FFCV decodes on the CPU: pass --data.source native, or --data.decode cpu")
            self.source, self.source_reason = "native", "nvimgcodec decodes" if wanted == "auto" else ""
            return NvimgcodecSource(self._dataset, workers=workers, device=self.device)
        self.source, self.source_reason = _choose(wanted)
        reader = ffcv_source.FfcvSource if self.source == "ffcv" else NativeSource
        return reader(self._dataset, workers=workers)

    def epoch(self, epoch: int, start: int = 0) -> Generator[RaggedBatch]:
        """Yields the batches of an epoch on `device`, starting with batch `start`.

        The caller owns each batch. Nothing is read before the first `next()`. All threads have ended when the generator
        is exhausted or closed (after `break` or an exception in the loop, as well).

        Raises UsageError for a `start` outside the epoch; while iterating, RunError for too many corrupt samples and
        for a file that was changed or lost.
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
        return self._decoded(ids, epoch)

    def batches_of(self, ids: Iterable[NDArray[np.int64]]) -> Generator[RaggedBatch]:
        """Yields one batch for each array of sample ids, in the given order.

        ids: iterable of int64 [B]; may be infinite. Raises what `epoch` raises, and UsageError for an id out of range.
        """
        return self._decoded(self._known(ids), 0)

    def take(self, ids_B: NDArray[np.int64]) -> RaggedBatch:
        """Loads these samples, int64 [B], as one batch on `device`. Raises what `batches_of` raises."""
        with closing(self.batches_of([ids_B])) as batches:
            return next(batches)

    def _known(self, ids: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
        for ids_B in ids:
            wrong = ids_B[(ids_B < 0) | (ids_B >= self.num_samples)]
            if wrong.size:
                raise UsageError(
                    f"{self.name} has samples 0 to {self.num_samples - 1}, not {wrong[0]}; pass the same photos"
                )
            yield ids_B

    def describe(self, sample: int) -> str:
        """A sample's file, its index there, and its name in the source collection if there is a manifest."""
        return self._dataset.describe(sample)

    def _decoded(self, ids: Iterator[NDArray[np.int64]], epoch: int) -> Generator[RaggedBatch]:
        on_cuda = self.device.type == "cuda"
        batches = self._on_cuda(ids, epoch) if on_cuda else self._batches(ids, epoch, OwnMemory())
        self._epochs.add(batches)
        return batches

    def _on_cuda(self, ids: Iterator[NDArray[np.int64]], epoch: int) -> Generator[RaggedBatch]:
        from .transfer import CudaLink, Ring, to_device

        link = CudaLink(self.device)
        if self.decode == "nvimgcodec":
            from .readers.nvimgcodec import DeviceMemory

            memory = DeviceMemory(link, self.device)
            return to_device(self._batches(ids, epoch, memory), link, memory)
        ring = Ring(link, batch_size=self.batch_size)
        return to_device(self._batches(ids, epoch, ring), link, ring)

    def _batches(self, ids: Iterator[NDArray[np.int64]], epoch: int, buffers: Buffers) -> Generator[RaggedBatch]:
        self._dataset.check_unchanged()
        self._faults.begin_epoch()
        with closing(self._read_ahead(ids, epoch)) as wanted, closing(self._source.batches(wanted, buffers)) as batches:
            for decoded in batches:
                self._dataset.check_unchanged(decoded.batch.ids_B.numpy())
                yield self._faults.repair(decoded, buffers)
                del decoded  # otherwise two batches would be in memory here while waiting for the next one

    def _read_ahead(self, ids: Iterator[NDArray[np.int64]], epoch: int) -> Generator[NDArray[np.int64]]:
        if self.order != "quasi-random":
            yield from ids
            return
        ahead = read_ahead(self._dataset, ids, seed=self.seed, epoch=epoch)
        depth = distance(self.batch_size * self.world)
        yield from Background(ahead, depth=depth, name="read-ahead", about=f"blocks of {self._dataset.name}")

    @property
    def columns(self) -> dict[str, list[float]]:
        """Additional per-sample values by column name, indexed by sample id; read from the sidecars on each access."""
        return self._dataset.columns

    @property
    def corrupt(self) -> int:
        """Number of corrupt samples that were replaced on this rank in the current epoch."""
        return self._faults.count

    def check_corrupt(self, count: int) -> None:
        """Raises RunError if `count`, the sum of `corrupt` over all ranks, exceeds `max_corrupt`."""
        self._faults.check(count)

    def close(self) -> None:
        """Ends all running epochs and closes the files."""
        for epoch in list(self._epochs):
            epoch.close()
        self._dataset.close()

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
