"""Corrupt samples: each is replaced by its next intact neighbour, counted and logged; too many of them end the run.

Shape suffixes: B batch, 2 = (height, width).
"""

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import RunError, UsageError
from .dataset import Dataset
from .ragged import RaggedBatch
from .readers.base import Buffers, Decoded, layout, ragged_batch
from .readers.native import decode_into

log = logging.getLogger(__name__)


class Faults:
    """Replaces and counts the samples of `dataset` that cannot be decoded.

    allowed: maximum fraction of all samples that may be corrupt. A corrupt sample is replaced by the next intact sample
    of its file (after the last sample comes the first): the same one on every rank and in every epoch.

    Attribute count: corrupt samples found in this epoch on this rank. The ranks have disjoint samples, so the sum over
    all ranks counts each sample once.

    Raises UsageError for an `allowed` outside [0, 1].
    """

    def __init__(self, dataset: Dataset, allowed: float):
        if not 0 <= allowed <= 1:
            raise UsageError(f"max_corrupt is {allowed}, expected a fraction of the samples from 0 to 1, such as 0.001")
        self._dataset, self._allowed = dataset, allowed
        self._replacements: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._last = -1
        self.count = 0

    def begin_epoch(self) -> None:
        """Resets the count."""
        self.count = 0

    def repair(self, decoded: Decoded, buffers: Buffers) -> RaggedBatch:
        """Returns the batch with each failed sample, and its id, replaced by an intact one.

        decoded: a batch of a reader. buffers: where memory for the repaired batch comes from.
        Raises RunError if more samples than allowed have failed, or if the disk fails.
        """
        if not decoded.failed:
            return decoded.batch
        ids_B = decoded.batch.ids_B.numpy().copy()
        for i in decoded.failed:
            sample = int(ids_B[i])
            if self._fault(sample) is None:
                continue  # the first read failed, this one succeeded
            self.count += 1
            self._last = sample
            self.check(self.count)
            ids_B[i] = self._replacement(sample)
        return self._replaced(decoded, ids_B, buffers)

    def check(self, count: int) -> None:
        """Raises RunError if `count`, the corrupt samples of an epoch over all ranks, is more than allowed."""
        if count <= self._allowed * self._dataset.num_samples:
            return
        fraction = count / self._dataset.num_samples
        named = ""
        if self._last >= 0:
            named = f"{self._dataset.describe(self._last)} cannot be decoded: {self._reasons[self._last]}; "
        raise RunError(
            f"{named}{count} of {self._dataset.num_samples} samples ({fraction:.2%}) are corrupt, more than "
            f"--data.max-corrupt {self._allowed:g} allows; the data are damaged, copy or write them again"
        )

    def _fault(self, sample: int) -> str | None:
        """Why a sample cannot be decoded, None if it can. Reads it again, which raises RunError if the disk fails."""
        if sample not in self._reasons:
            size = int(np.prod(self._dataset.sizes_N2[sample], dtype=np.int64)) * 3
            fault = decode_into(*self._dataset.locate(sample), np.empty(size, np.uint8))
            if fault is None:
                return None
            self._reasons[sample] = fault
        return self._reasons[sample]

    def _replacement(self, sample: int) -> int:
        if sample not in self._replacements:
            self._replacements[sample] = other = self._next_intact(sample)
            described, local = self._dataset.describe(sample), self._dataset.locate(other)[1]
            log.warning("%s cannot be decoded: %s; replaced by sample %d", described, self._reasons[sample], local)
        return self._replacements[sample]

    def _next_intact(self, sample: int) -> int:
        start, stop = self._dataset.shard_range(sample)
        for step in range(1, stop - start):
            other = start + (sample - start + step) % (stop - start)
            if self._fault(other) is None:
                return other
        raise RunError(f"{self._dataset.locate(sample)[0].path}: none of its samples can be decoded; write it again")

    def _replaced(self, decoded: Decoded, ids_B: NDArray[np.int64], buffers: Buffers) -> RaggedBatch:
        """The batch of `ids_B`: intact images are copied from `decoded`, replacements are decoded here."""
        failed, old_pixels = set(decoded.failed), decoded.batch.pixels.cpu().numpy()
        old_offsets = decoded.batch.offsets_B.tolist()
        offsets_B, bytes_B, count = layout(self._dataset.sizes_N2[ids_B])
        whole = np.zeros(count, np.uint8)
        for i, sample in enumerate(ids_B.tolist()):
            image = whole[offsets_B[i] : offsets_B[i] + bytes_B[i]]
            if i not in failed:
                image[:] = old_pixels[old_offsets[i] : old_offsets[i] + bytes_B[i]]
            elif fault := decode_into(*self._dataset.locate(sample), image):
                raise RunError(f"{self._dataset.describe(sample)} cannot be decoded any more: {fault}")
        pixels = buffers.exchange(decoded.batch.pixels, count)
        pixels.copy_(torch.from_numpy(whole))
        return ragged_batch(self._dataset, ids_B, pixels, offsets_B)
