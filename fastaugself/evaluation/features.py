"""Frozen features of photos.

Shape suffixes: V views, B batch, N samples, D features.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy, augment, sample_params
from fastaugself_kernels.backends import Backend

from ..data.loader import Loader
from ..errors import RunError, UsageError
from . import cache, fusion
from .encoders import Encoder
from .prepare import Filter, batches, in_threads, normalise, prepare
from .splits import Images, Split

CPU = torch.device("cpu")


class Features(NamedTuple):
    """features_ND: float32, pooled, not normalised. labels_N: int64, -1 where unknown. ids_N: int64 sample ids."""

    features_ND: Tensor
    labels_N: Tensor
    ids_N: Tensor


@torch.no_grad()
def extract(
    backbone: nn.Module,
    loader: Loader,
    *,
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    limit: int | None = None,
    channels_last: bool = True,
    backend: Backend = "auto",
) -> Features:
    """Features of each photo's central square, resized to `size`, from the backbone in evaluation mode, on the CPU.

    limit: stop after this many samples, in the loader's order of epoch 0.
    """
    policies = (ViewPolicy.none(size),)
    was_training = backbone.training
    backbone.eval()
    features, labels, ids, count = [], [], [], 0
    layout = torch.channels_last if channels_last else torch.contiguous_format
    try:
        with closing(loader.epoch(0)) as batches:
            for canvas in batches:
                params_VBP = sample_params(canvas.ids_B, canvas.sizes_B2, policies, seed=0, epoch=0)
                x_VBCHW = augment(
                    canvas.pixels,
                    canvas.offsets_B,
                    canvas.sizes_B2,
                    params_VBP,
                    size=size,
                    mean=mean,
                    std=std,
                    blur_kernel=1,
                    backend=backend,
                )
                features.append(backbone(x_VBCHW[0].contiguous(memory_format=layout)).float().cpu())
                labels.append(canvas.labels_B.cpu())
                ids.append(canvas.ids_B.cpu())
                count += len(canvas.ids_B)
                if limit is not None and count >= limit:
                    break
    finally:
        backbone.train(was_training)
    return Features(torch.cat(features)[:limit], torch.cat(labels)[:limit], torch.cat(ids)[:limit])


@dataclass(frozen=True)
class Extractor:
    """Features of images, computed once for each (encoder, preparation, images) and kept in `folder`.

    device: where encoders run. resize: shorter side before the central crop, 0 for the encoder's own size. folder:
    of the cache, None to keep nothing. workers: threads that decode, 0 for one a core. filter: of the resize.
    """

    device: torch.device = CPU
    resize: int = 0
    folder: Path | None = None
    batch_size: int = 64
    workers: int = 0
    filter: Filter = "bicubic"

    def side(self, encoder: Encoder) -> int:
        """Shorter side of the resized image; UsageError where the central crop would not fit into it."""
        if self.resize and self.resize < encoder.size:
            raise UsageError(f"--resize {self.resize} is below the {encoder.size} pixels that {encoder.name} takes")
        return self.resize or encoder.size

    def __call__(self, encoder: Encoder, split: Split, where: str) -> fusion.Representation:
        """The features of a split, in its order. where: its name, for messages.

        Raises UsageError for an empty split, RunError for an image that cannot be read and features that are not
        finite.
        """
        if not len(split):
            raise UsageError(f"{where} is empty")
        identity, side = split.images.digest(self.folder), self.side(encoder)
        key = cache.key_of("features-1", encoder.digest, str(side), str(encoder.size), self.filter, identity)

        def compute() -> Iterator[NDArray[np.float32]]:
            prepared = partial(prepare, size=encoder.size, resize=side, filter=self.filter)
            with Frozen(encoder, self.device) as frozen:
                for x_BHWC in batches(split.images, prepared, batch_size=self.batch_size, workers=self.workers):
                    yield frozen(x_BHWC).numpy()

        x_ND = self.kept(key, len(split), compute(), f"{encoder.name} on {where}")
        return fusion.Representation(encoder.name, x_ND, identity)

    def kept(self, key: str, count: int, batches: Iterable[NDArray[np.float32]], what: str) -> Tensor:
        """The rows [count, D] at an address of the cache, else computed and kept there.

        what: in words, for the refusal of rows that are not finite.
        """
        found = cache.read(self.folder, key, count) if self.folder else None
        if found is None:
            checked = _finite(batches, what)
            found = cache.write(self.folder, key, count, checked) if self.folder else np.concatenate(list(checked))
        return torch.from_numpy(np.array(found))

    def sizes(self, images: Images) -> NDArray[np.float64]:
        """(width, height) in pixels of every image, [N, 2]."""
        key = cache.key_of("sizes-1", images.digest(self.folder))
        opened = in_threads(lambda i: images.open(i).size, range(len(images)), workers=self.workers)
        rows = (np.array([size], np.float32) for size in opened)
        return self.kept(key, len(images), rows, "sizes").double().numpy()


def _finite(batches: Iterable[NDArray[np.float32]], what: str) -> Iterator[NDArray[np.float32]]:
    """The batches; what is not finite is refused before it is kept."""
    seen = 0
    for batch in batches:
        finite = np.isfinite(batch).all(1)
        if not finite.all():
            first = seen + int(np.flatnonzero(~finite)[0])
            raise RunError(
                f"features of {what} are not finite (first: sample {first}): the model is broken, or overflows in its "
                f"precision"
            )
        seen += len(batch)
        yield batch


class Frozen:
    """An encoder on a device for a while: uint8 [B, H, W, C] to features [B, D], float32, on the CPU."""

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder, self.device = encoder, device

    def __enter__(self) -> "Frozen":
        module = self.encoder.module.to(self.device)
        self.module: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @torch.inference_mode()
    def __call__(self, x_BHWC: Tensor) -> Tensor:
        x_BCHW = normalise(x_BHWC.to(self.device, non_blocking=True), self.encoder.mean, self.encoder.std)
        return self.features(x_BCHW)

    @torch.inference_mode()
    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features [B, D] of normalised images."""
        f_BD = self.module(x_BCHW)
        if not isinstance(f_BD, Tensor):
            raise UsageError(f"{self.encoder.name} gives {type(f_BD).__name__} instead of one tensor of features")
        return f_BD.float().flatten(1).cpu()

    def __exit__(self, *_: object) -> None:
        self.encoder.module.to("cpu")
