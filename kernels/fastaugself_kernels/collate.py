"""Images from any DataLoader: what items of a data set may be, and how they are packed into one batch.

    loader = DataLoader(WithIndex(dataset), batch_size=256, collate_fn=collate_images, num_workers=4)

Shape suffixes: B batch, C channels, H W.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from .ragged import RaggedBatch, pack

CHANNELS = (1, 3, 4)
DEEP = 257  # 65535 / 255: a 16-bit value by it, rounded, is its 8-bit value


class Indexed(NamedTuple):
    """An item of a data set with its index."""

    item: Any
    id: int


class WithIndex:
    """A map-style data set whose items carry their index, which is the id that their parameters are drawn for.

    dataset: anything with `__getitem__` and `__len__`; its other attributes are those of this object. Of a part of a
    data set, wrap the whole: `Subset(WithIndex(dataset), indices)` keeps the ids of the whole.
    Raises ValueError for a data set without indices.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"WithIndex needs a data set with __getitem__, got {type(dataset).__name__}; let its items be "
                "(image, label, id), or leave ids out: AugmentViews then numbers the images"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Indexed:
        return Indexed(self.dataset[index], int(index))

    def __getitems__(self, indices: Sequence[int]) -> list[Indexed]:
        """The items of a batch, at once where the data set can (Hugging Face's): DataLoaders prefer this."""
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        return [Indexed(item, int(index)) for item, index in zip(items, indices, strict=True)]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # not there yet while it is unpickled in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)


def collate_images(items: Sequence[Any], *, image: str = "image", label: str = "label", id: str = "id") -> RaggedBatch:
    """Packs images of any sizes into one batch: a `collate_fn` for DataLoaders, also in workers.

    items: each an image, (image, label), (image, label, id), a dictionary with the key `image` and, where it has them,
    `label` and `id`, or one of these with its index from `WithIndex`, which goes before another id. A third value that
    is no whole number (a file's name, as lightly's) and other keys are left out. `functools.partial` sets other keys.

    An image is a PIL image of any mode but F, an array [H, W, 3] or [H, W], or a tensor [3, H, W], [H, W, 3] or
    [H, W]; arrays and tensors are uint8, or uint16 whose range is 65535. One channel is repeated, a fourth (alpha) is
    dropped. The order is RGB (OpenCV's is BGR: `image[..., ::-1]`), and EXIF orientations are not applied, as
    torchvision does not.

    Raises ValueError for an image of another kind or dtype, a tensor that could be of either layout, and a label that
    is not a whole number.
    """
    if not items:
        raise ValueError("a batch needs at least one image, got none; pass drop_last=True, or filter the data set")
    ids, images, labels = [], [], []
    for item in items:
        index = None
        if isinstance(item, Indexed):
            item, index = item
        picture, number, own = _parts(item, image, label, id)
        images.append(to_pixels(picture))
        labels.append(number)
        if index is not None or own is not None:
            ids.append(own if index is None else index)
    if ids and len(ids) < len(items):
        raise ValueError(f"{len(ids)} of {len(items)} items have an id; wrap the whole data set: WithIndex(dataset)")
    return RaggedBatch(
        *pack(images),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ids, dtype=torch.int64) if ids else None,
    )


def _parts(item: Any, image: str, label: str, id: str) -> tuple[Any, int, int | None]:
    """The image, the label (-1 without one) and the id (None without one) of an item."""
    if isinstance(item, Mapping):
        if image not in item:
            raise ValueError(
                f"an item has no key {image!r} but {', '.join(map(str, item))}: name the image's with "
                "functools.partial(collate_images, image=KEY, label=KEY)"
            )
        return item[image], _label(item.get(label)), _whole(item.get(id))
    if isinstance(item, tuple | list):
        if len(item) not in (2, 3):
            raise ValueError(
                f"an item must be an image, (image, label) or (image, label, id), got {len(item)} values; leave out "
                "the others, or let items be dictionaries"
            )
        return item[0], _label(item[1]), _whole(item[2]) if len(item) == 3 else None
    return item, -1, None


def _label(label: Any) -> int:
    number = -1 if label is None else _whole(label)
    if number is None:
        raise ValueError(
            f"a label must be a whole number or None, got {type(label).__name__} {label!r:.40}; leave it out of the "
            "items, or number the classes"
        )
    return number


def _whole(value: Any) -> int | None:
    """The value if it is a whole number."""
    if isinstance(value, Tensor | np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def to_pixels(image: Any) -> np.ndarray:
    """An image as uint8 [H, W, 1, 3 or 4]; kinds and errors as in `collate_images`."""
    pil = sys.modules.get("PIL.Image")  # imported by whoever made the image
    if pil is not None and isinstance(image, pil.Image):
        return _pixels_of_pil(image)
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(
            f"an image must be a PIL image, a uint8 array or a uint8 tensor, got {type(image).__name__}: open files in "
            "the data set"
        )
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"an image must be uint8 pixels from 0 to 255, got {image.dtype} {list(image.shape)}: leave out ToTensor "
            "and normalisation, which the augmentation does at its end"
        )
    first, last = (array.ndim == 3 and array.shape[axis] in CHANNELS for axis in (0, 2))
    if first and not last and isinstance(image, Tensor):
        array = array.transpose(1, 2, 0)
    elif first and not last and array.shape[0] == 3:
        raise ValueError(
            f"an array must be [H, W, 3], channels last, got {list(array.shape)}; pass image.transpose(1, 2, 0)"
        )
    elif first and last and isinstance(image, Tensor):
        raise ValueError(
            f"a tensor of shape {list(image.shape)} can be [C, H, W] or [H, W, C]; pass an array [H, W, C]: "
            "image.numpy(), or image.permute(1, 2, 0).numpy() if channels come first"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or 0 in array.shape:
        raise ValueError(
            f"an image must be [H, W, 3] or [H, W] with at least one pixel, got {list(image.shape)}; a batch of images "
            "goes to AugmentViews as it is"
        )
    return array if array.dtype == np.uint8 else _shallow(array)


def _pixels_of_pil(image: Any) -> np.ndarray:
    if image.mode == "F":
        raise ValueError(
            "a PIL image of mode F has pixels of an unknown range; scale them in the data set: "
            "Image.fromarray((x * 255).astype(numpy.uint8)) if they are in [0, 1]"
        )
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion would clip values above 255
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(
                f"a PIL image of mode {image.mode} has values from {pixels.min()} to {pixels.max()}, which do not fit "
                "16 bits; scale them to 0 to 255 in the data set"
            )
        return _shallow(pixels)[..., None]
    array = np.asarray(image if image.mode in ("RGB", "L") else image.convert("RGB"))
    return array[..., None] if array.ndim == 2 else array


def _shallow(pixels: np.ndarray) -> np.ndarray:
    """16-bit pixels as 8-bit."""
    return np.round(pixels / DEEP).astype(np.uint8)
