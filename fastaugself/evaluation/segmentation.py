"""Semantic segmentation with frozen feature maps: maps and masks of one geometry, the choice of a head, its scores.

Shape suffixes: N images, B batch, C channels, K classes, H W of the mask, h w of the feature map.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..data.inputs.samples import some
from ..errors import UsageError
from ..models.inner import check_layers, inner_map, layer_widths
from ..probes.segmentation import (
    IGNORED,
    Counts,
    Head,
    PixelCounts,
    channel_statistics,
    confusion,
    mean_iou,
    train_heads,
)
from . import cache
from .datasets.masks import ClassValues, MaskData, MaskSplit, class_values
from .encoder import Encoder
from .features import Extractor
from .pixels import FILTERS, prepare
from .prepare import in_threads
from .splits import Images, Split

log = logging.getLogger("fastaugself")

Frame = Literal["crop", "whole"]
CHUNK = 64  # maps in memory at once, for their statistics


class Maps(nn.Module):
    """A backbone that returns the feature map of one layer, [B, C, h, w]."""

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return inner_map(self.backbone, x_BCHW, self.layer)


class DenseEncoder(NamedTuple):
    """An encoder of flattened feature maps of `layer`. shape: (C, h, w) of a map."""

    encoder: Encoder
    layer: str
    shape: tuple[int, int, int]


def dense(encoder: Encoder, layer: str = "") -> DenseEncoder:
    """The encoder of the feature maps of a layer; default: the last one, a ViT's patch tokens or a ResNet's layer4.

    Raises UsageError for a model without inner layers, and for an unknown layer.
    """
    known = layer_widths(encoder.module)
    if not known:
        raise UsageError(
            f"{encoder.name} has neither patch tokens nor feature maps: pass a run, an export, resnet50=CHECKPOINT, or "
            f"a timm:NAME with `forward_intermediates`, such as timm:vit_small_patch16_224"
        )
    layer = layer or list(known)[-1]
    try:
        check_layers(encoder.module, (layer,), "--layer", "no --layer for the last one")
    except UsageError as error:
        raise UsageError(f"{encoder.name}: {error}") from None
    maps = Maps(encoder.module, layer).eval()
    with torch.inference_mode():
        parameter = next(maps.parameters(), torch.zeros(()))
        _, C, h, w = maps(torch.zeros(1, 3, encoder.size, encoder.size, device=parameter.device)).shape
    digest = hashlib.blake2b(f"maps-1 {layer} {encoder.digest}".encode(), digest_size=16).hexdigest()
    inner = Encoder(encoder.name, encoder.source, maps, encoder.size, encoder.mean, encoder.std, digest)
    return DenseEncoder(inner, layer, (C, h, w))


@dataclass(frozen=True)
class Squeezed:
    """The images of a sequence, each resized as a whole to a square of `side` pixels."""

    images: Images
    side: int

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Image.Image:
        return self.images.open(index).resize((self.side, self.side), FILTERS["bicubic"])

    def digest(self, memo: Path | None) -> str:
        return cache.key_of("squeezed-1", str(self.side), self.images.digest(memo))


def frame_mask(mask: Image.Image, size: int, resize: int, frame: Frame) -> NDArray[np.uint8]:
    """The mask of what the encoder sees, uint8 [size, size]: the resize and crop of the photo, with nearest pixels."""
    if frame == "whole":
        return np.asarray(mask.resize((size, size), FILTERS["nearest"]))
    return prepare(mask, size, resize, "nearest")


def check_masks(data: MaskData, extract: Extractor, ignore: Sequence[int]) -> ClassValues:
    """Reads all masks once, cached, and returns the classes.

    Raises UsageError for a mask of another size than its photo and for a value beyond the classes, and logs classes
    that the training masks lack.
    """
    present: dict[str, set[int]] = {}
    for name, split in data.splits.items():
        key = cache.key_of("masks-1", split.masks.digest(extract.folder))
        rows = in_threads(lambda i, of=split: _facts(of.mask(i)), range(len(split)), workers=extract.workers)  # type: ignore[misc]
        facts = extract.cached(key, len(split), rows, f"the {name} masks").numpy().astype(np.int64)
        sizes = extract.sizes(split.photos.images).astype(np.int64)
        wrong = np.flatnonzero((facts[:, :2] != sizes).any(1))
        if len(wrong):
            first = int(wrong[0])
            mask, photo = (" x ".join(map(str, values[first])) for values in (facts[:, :2], sizes))
            raise UsageError(
                f"{split.masks.root / split.masks.names[first]} has {mask} pixels and its photo {photo} "
                f"({len(wrong)} of {len(split)} masks in {name}): make each mask as large as its photo"
            )
        present[name] = {int(value) for value in np.flatnonzero(facts[:, 2:].any(0))}
    found = class_values(sorted(set().union(*present.values())), data.classes, ignore, ignored=IGNORED)
    learned = {int(found.table[value]) for value in present["train"]}
    unseen = [name for i, name in enumerate(found.names) if i not in learned]
    if unseen:
        log.warning("%s: no training mask has %s, which cannot be learned (IoU 0)", data.name, some(unseen))
    return found


def _facts(mask: Image.Image) -> NDArray[np.float32]:
    """Width, height, and whether each of the 256 values occurs, float32 [1, 258]."""
    occurs = np.bincount(np.asarray(mask).reshape(-1), minlength=256) > 0
    return np.concatenate([np.array(mask.size, np.float32), occurs.astype(np.float32)])[None]


class Samples(NamedTuple):
    """Feature maps [N, C * h * w] float32, memory-mapped if cached, and masks uint8 [N, H, W] in the same frame."""

    rows_ND: NDArray[np.float32]
    masks_NHW: NDArray[np.uint8]


def samples(extract: Extractor, of: DenseEncoder, split: MaskSplit, where: str, frame: Frame) -> Samples:
    """The maps and framed masks of a split. where: its name, for messages."""
    photos, encoder = split.photos, of.encoder
    if frame == "whole":
        photos = Split(Squeezed(photos.images, encoder.size), photos.labels_N, None, photos.names)
        rows_ND, side = replace(extract, resize=0).rows(encoder, photos, where), encoder.size
    else:
        rows_ND, side = extract.rows(encoder, photos, where), extract.side(encoder)
    framed = in_threads(
        lambda i: frame_mask(split.mask(i), encoder.size, side, frame), range(len(split)), workers=extract.workers
    )
    return Samples(rows_ND, np.stack(list(framed)))


class Trainer:
    """Trains heads on the samples of one or several splits, in batches drawn anew for each epoch."""

    def __init__(self, parts: Sequence[Samples], of: DenseEncoder, classes: ClassValues) -> None:
        self.parts, self.shape, self.classes = parts, of.shape, classes
        self.places = [(p, i) for p, part in enumerate(parts) for i in range(len(part.rows_ND))]

    def batches(self, epoch: int, *, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, as `train_heads` takes them. seed: of the order."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.places))
        for start in range(0, len(order), batch_size):
            chosen = [self.places[i] for i in order[start : start + batch_size]]
            rows_BD = np.stack([self.parts[p].rows_ND[i] for p, i in chosen])
            masks_BHW = np.stack([self.parts[p].masks_NHW[i] for p, i in chosen])
            x_BChw = torch.from_numpy(rows_BD).unflatten(1, self.shape)
            yield x_BChw, torch.from_numpy(self.classes.table[masks_BHW])

    def fit(
        self,
        lrs: Sequence[float],
        *,
        epochs: int,
        batch_size: int,
        weight_decay: float,
        seed: int,
        device: torch.device,
    ) -> list[Head]:
        """One head for each learning rate."""
        mean_C, std_C = channel_statistics(
            torch.from_numpy(np.array(part.rows_ND[i : i + CHUNK])).unflatten(1, self.shape)
            for part in self.parts
            for i in range(0, len(part.rows_ND), CHUNK)
        )
        return train_heads(
            partial(self.batches, batch_size=batch_size, seed=seed),
            -(-len(self.places) // batch_size),
            channels=self.shape[0],
            classes=len(self.classes.names),
            lrs=lrs,
            weight_decay=weight_decay,
            epochs=epochs,
            device=device,
            mean_C=mean_C,
            std_C=std_C,
        )


def predictions(
    head: Head, rows_ND: NDArray[np.float32], shape: tuple[int, int, int], sizes: Sequence[tuple[int, ...]]
) -> Iterator[NDArray[np.int64]]:
    """The predicted classes of each image, int64 [H, W]. sizes: (H, W) of each."""
    device = head.bias_K.device
    for row_D, size in zip(rows_ND, sizes, strict=True):
        x_1Chw = torch.from_numpy(np.array(row_D)).view(1, *shape).to(device)
        yield head.logits(x_1Chw, (size[0], size[1]))[0].argmax(0).cpu().numpy()


def truth(found: Samples, classes: ClassValues, index: int, whole: MaskSplit | None = None) -> NDArray[np.int64]:
    """The classes [H, W] of a mask in the encoder's frame, or, with the split `whole`, at the mask's own size."""
    return classes.table[found.masks_NHW[index] if whole is None else np.asarray(whole.mask(index))]


def confusions(
    head: Head, of: DenseEncoder, found: Samples, classes: ClassValues, whole: MaskSplit | None = None
) -> list[Counts]:
    """The confusion matrix of each image. whole: as of `truth`."""
    matrices = []
    for index, row_D in enumerate(found.rows_ND):
        truth_HW = truth(found, classes, index, whole)
        (predicted_HW,) = predictions(head, row_D[None], of.shape, [truth_HW.shape])
        matrices.append(confusion(predicted_HW, truth_HW, len(classes.names)))
    return matrices


class Choice(NamedTuple):
    """The head refit on train and val, and the validation mIoU of each learning rate."""

    head: Head
    path: list[tuple[float, float]]


def choose_head(
    train: Samples, val: Samples, of: DenseEncoder, classes: ClassValues, lrs: Sequence[float], **options: Any
) -> Choice:
    """Trains a head for every learning rate on train, takes the best on val, and refits it on both.

    Of learning rates with equal validation mIoU the first is chosen. options: as of `Trainer.fit`.
    """
    heads = Trainer([train], of, classes).fit(lrs, **options)
    path = [(h.lr, mean_iou(PixelCounts.of(confusions(h, of, val, classes)))) for h in heads]
    best = max(path, key=lambda entry: entry[1])[0]
    if len(lrs) > 1 and best in (min(lrs), max(lrs)):
        end = "smallest" if best == min(lrs) else "largest"
        log.warning("%s: the best learning rate %g is the %s of --lrs: pass further ones", of.encoder.name, best, end)
    (head,) = Trainer([train, val], of, classes).fit([best], **options)
    return Choice(head, path)
