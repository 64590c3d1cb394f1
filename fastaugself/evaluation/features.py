"""Feature extraction with frozen encoders, with a cache.

Shape suffixes: V views, B batch, N samples, D features.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import RunError, UsageError
from . import cache, fusion
from .encoder import Encoder
from .pixels import Filter, normalise, prepare
from .prepare import batches, in_threads
from .splits import Images, Split

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Extractor:
    """Extracts features, cached by encoder, preprocessing and image content.

    device: where encoders run. resize: shorter side in pixels after resizing, before the central crop; 0 = the
    encoder's input size. folder: of the cache, None = no cache. workers: decoding threads, 0 = one per core.
    filter: resampling filter of the resize.
    """

    device: torch.device = CPU
    resize: int = 0
    folder: Path | None = None
    batch_size: int = 64
    workers: int = 0
    filter: Filter = "bicubic"

    def side(self, encoder: Encoder) -> int:
        """Shorter side of the resized image in pixels; UsageError if the central crop does not fit into it."""
        if self.resize and self.resize < encoder.size:
            raise UsageError(
                f"--resize {self.resize} is below the {encoder.size} pixels of {encoder.name}'s input: pass at least "
                f"{encoder.size}"
            )
        return self.resize or encoder.size

    def __call__(self, encoder: Encoder, split: Split, where: str) -> fusion.Representation:
        """The features of a split, in its order. where: name of the split, for messages.

        Raises UsageError for an empty split, RunError for an unreadable image and for NaN or Inf features.
        """
        x_ND = torch.from_numpy(np.array(self.rows(encoder, split, where)))
        return fusion.Representation(encoder.name, x_ND, split.images.digest(self.folder))

    def rows(self, encoder: Encoder, split: Split, where: str) -> NDArray[np.float32]:
        """The features [N, D] of a split as by calling, memory-mapped if they are cached."""
        if not len(split):
            raise UsageError(f"the {where} split is empty")
        identity, side = split.images.digest(self.folder), self.side(encoder)
        key = cache.key_of("features-1", encoder.digest, str(side), str(encoder.size), self.filter, identity)

        def compute() -> Iterator[NDArray[np.float32]]:
            prepared = partial(prepare, size=encoder.size, resize=side, filter=self.filter)
            with Frozen(encoder, self.device) as frozen:
                for x_BHWC in batches(split.images, prepared, batch_size=self.batch_size, workers=self.workers):
                    yield frozen(x_BHWC).numpy()

        return self.stored(key, len(split), compute(), f"{encoder.name} on {where}")

    def cached(self, key: str, count: int, batches: Iterable[NDArray[np.float32]], what: str) -> Tensor:
        """The cached rows [count, D] of a key in memory, see `stored`."""
        return torch.from_numpy(np.array(self.stored(key, count, batches, what)))

    def stored(self, key: str, count: int, batches: Iterable[NDArray[np.float32]], what: str) -> NDArray[np.float32]:
        """The cached rows [count, D] of a key, memory-mapped; computed from `batches` and stored if missing.

        what: description of the rows, for the error about NaN or Inf.
        """
        found = cache.read(self.folder, key, count) if self.folder else None
        if found is None:
            checked = _finite(batches, what)
            found = cache.write(self.folder, key, count, checked) if self.folder else np.concatenate(list(checked))
        return found

    def sizes(self, images: Images) -> NDArray[np.float64]:
        """(width, height) of every image in pixels, float64 [N, 2], cached."""
        key = cache.key_of("sizes-1", images.digest(self.folder))
        opened = in_threads(lambda i: images.open(i).size, range(len(images)), workers=self.workers)
        rows = (np.array([size], np.float32) for size in opened)
        return self.cached(key, len(images), rows, "sizes").double().numpy()


def _finite(batches: Iterable[NDArray[np.float32]], what: str) -> Iterator[NDArray[np.float32]]:
    """Yields the batches; RunError for NaN or Inf, before they are cached."""
    seen = 0
    for batch in batches:
        finite = np.isfinite(batch).all(1)
        if not finite.all():
            first = seen + int(np.flatnonzero(~finite)[0])
            raise RunError(
                f"the features of {what} contain NaN or Inf (first: sample {first}): its weights are damaged, or it "
                f"overflows in its precision"
            )
        seen += len(batch)
        yield batch


class Frozen:
    """Context manager with an encoder on a device: images uint8 [B, H, W, C] to features float32 [B, D] on the CPU."""

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder, self.device = encoder, device

    def __enter__(self) -> "Frozen":
        self.encoder.module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @torch.inference_mode()
    def __call__(self, x_BHWC: Tensor) -> Tensor:
        x_BCHW = normalise(x_BHWC.to(self.device, non_blocking=True), self.encoder.mean, self.encoder.std)
        return self.features(x_BCHW)

    @torch.inference_mode()
    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features [B, D], float32 on the CPU, of normalised images on the device."""
        f_BD: Tensor = self.encoder(x_BCHW)
        return f_BD.float().cpu()

    def __exit__(self, *_: object) -> None:
        self.encoder.module.to("cpu")
