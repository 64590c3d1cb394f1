"""Augmentation in any loop: batches of images of any size from a DataLoader, and a module that makes their views.

    loader = DataLoader(WithIndex(dataset), batch_size=256, collate_fn=collate_images, num_workers=4)
    augment_views = AugmentViews((ViewPolicy.moco_v2(224),) * 2)
    views, params = augment_views(batch)      # for every batch, here or on a GPU

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, N bytes, 2 = (height, width).
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .augment import augment
from .backends import Backend, Rounding
from .params import IMAGENET_MEAN, IMAGENET_STD, ViewPolicy, default_blur_kernel
from .sampling import sample_params

CHANNELS = (1, 3, 4)


class RaggedBatch(NamedTuple):
    """A batch of images of any sizes.

    pixels: uint8 [N], the images back to back, each [H, W, 3] RGB. offsets_B: int64 [B], the first byte of each.
    sizes_B2: int32 [B, 2], (height, width). labels_B: int64 [B], -1 without a label. ids_B: int64 [B], index of each
    image in its data set, or None if it is not known (see `WithIndex`).
    """

    pixels: Tensor
    offsets_B: Tensor
    sizes_B2: Tensor
    labels_B: Tensor
    ids_B: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "RaggedBatch":
        """The same batch on a device."""
        return RaggedBatch(*(None if t is None else t.to(device, non_blocking=non_blocking) for t in self))  # type: ignore[arg-type]

    def pin_memory(self) -> "RaggedBatch":
        """The same batch in page-locked memory."""
        return RaggedBatch(*(None if t is None else t.pin_memory() for t in self))  # type: ignore[arg-type]


class Indexed(NamedTuple):
    """An item of a data set with its index."""

    item: Any
    id: int


class WithIndex:
    """A map-style data set whose items carry their index, which is the id that their parameters are drawn for.

    dataset: anything with `__getitem__` and `__len__`; its other attributes are those of this object.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Indexed:
        return Indexed(self.dataset[index], int(index))

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # not there yet while it is unpickled in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)


def collate_images(items: Sequence[Any], *, image: str = "image", label: str = "label") -> RaggedBatch:
    """Packs images of any sizes into one batch: a `collate_fn` for DataLoaders, also in workers.

    items: each an image, (image, label), a dictionary with the keys `image` and, if there are labels, `label`, or one
    of these with its index from `WithIndex`. An image is a PIL image, a uint8 array [H, W, 3] or [H, W], or a uint8
    tensor [3, H, W] or [H, W, 3]; an alpha channel is dropped. `functools.partial` sets other keys.

    Raises ValueError for an image of another kind or dtype, and for a label that is not a whole number.
    """
    if not items:
        raise ValueError("a batch needs at least one image, got none")
    ids, images, labels = [], [], []
    for item in items:
        if isinstance(item, Indexed):
            ids.append(item.id)
            item = item.item
        picture, number = _parts(item, image, label)
        images.append(to_pixels(picture))
        labels.append(number)
    if ids and len(ids) < len(items):
        raise ValueError(f"{len(ids)} of {len(items)} items have an index; wrap the whole data set in WithIndex")
    ends = np.cumsum([picture.size for picture in images])
    pixels = torch.empty(int(ends[-1]), dtype=torch.uint8)
    packed = pixels.numpy()
    for picture, end in zip(images, ends, strict=True):
        packed[end - picture.size : end] = picture.reshape(-1)
    return RaggedBatch(
        pixels,
        torch.from_numpy(np.concatenate(([0], ends[:-1])).astype(np.int64)),
        torch.tensor([picture.shape[:2] for picture in images], dtype=torch.int32),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ids, dtype=torch.int64) if ids else None,
    )


def _parts(item: Any, image: str, label: str) -> tuple[Any, int]:
    """The image and the label of an item."""
    if isinstance(item, Mapping):
        if image not in item:
            raise ValueError(
                f"an item has no key {image!r} but {', '.join(map(str, item))}: name the image's with "
                "functools.partial(collate_images, image=KEY, label=KEY)"
            )
        return item[image], _number(item.get(label))
    if isinstance(item, tuple | list):
        if len(item) != 2:
            raise ValueError(f"an item must be an image or (image, label), got {len(item)} values; return only these")
        return item[0], _number(item[1])
    return item, -1


def _number(label: Any) -> int:
    if label is None:
        return -1
    if isinstance(label, Tensor | np.generic | np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise ValueError(f"a label must be a whole number or None, got {type(label).__name__} {label!r:.40}")
    return label


def to_pixels(image: Any) -> "np.ndarray":
    """An image as uint8 [H, W, 3]; kinds and errors as in `collate_images`."""
    pil = sys.modules.get("PIL.Image")  # imported by whoever made the image
    if pil is not None and isinstance(image, pil.Image):
        if image.mode[:1] in "IF":
            raise ValueError(f"a PIL image of mode {image.mode} has more than 8 bits a channel; convert it to 8 bits")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(
            f"an image must be a PIL image, a uint8 array or a uint8 tensor, got {type(image).__name__}: open files in "
            "the data set"
        )
    if image.dtype not in (torch.uint8, np.uint8):
        raise ValueError(
            f"an image must be uint8 pixels from 0 to 255, got {image.dtype} {list(image.shape)}: leave out ToTensor "
            "and normalisation, which the augmentation does at its end"
        )
    array: Any = image
    if isinstance(image, Tensor):
        array = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] in CHANNELS:
            if image.shape[2] in CHANNELS:
                raise ValueError(
                    f"a tensor of shape {list(image.shape)} can be [C, H, W] or [H, W, C]; pass an array [H, W, C]"
                )
            array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or 0 in array.shape:
        raise ValueError(f"an image must be [H, W, 3] or [H, W] with at least one pixel, got {list(array.shape)}")
    return np.repeat(array, 3, 2) if array.shape[2] == 1 else np.ascontiguousarray(array[..., :3])


class AugmentViews(nn.Module):
    """Makes the views of a batch, and the parameters that they were made from.

    policies: one `ViewPolicy` per view, or one for both of two views. size: side of the views in pixels, instead of
    that of the policies. seed: of the parameters. color_shift: also return CASSLE's colour shift. mean, std, dtype,
    rounding, antialias, solarize_before_gray, backend: as for `augment`. blur_kernel: taps of the Gaussian, default a
    tenth of the view's size, as published.

    A view depends on (seed, epoch, id of the image, number of the view) alone. Where no ids are given or carried by the
    batch, images are numbered in the order in which they come: a repeated program repeats its views, but another order
    or number of processes gives others. Where no epoch is given or set, every call counts as an epoch of its own.
    These two counters are part of `state_dict`. train() and eval() make no difference.
    """

    def __init__(
        self,
        policies: ViewPolicy | Sequence[ViewPolicy],
        *,
        size: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        color_shift: bool = False,
        blur_kernel: int | None = None,
        rounding: Rounding = "uint8",
        antialias: bool = True,
        solarize_before_gray: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        given = (policies,) * 2 if isinstance(policies, ViewPolicy) else tuple(policies)
        if not given or not all(isinstance(policy, ViewPolicy) for policy in given):
            raise ValueError(f"policies must be one ViewPolicy per view, got {policies!r}")
        if size is not None:
            given = tuple(dataclasses.replace(policy, size=size) for policy in given)
        self.policies, self.seed, self.color_shift, self.blur_kernel = given, seed, color_shift, blur_kernel
        self._options: dict[str, Any] = {
            "mean": tuple(mean), "std": tuple(std), "dtype": dtype, "rounding": rounding, "antialias": antialias,
            "solarize_before_gray": solarize_before_gray, "backend": backend,
        }  # fmt: skip
        self.epoch: int | None = None
        self._calls = self._images = 0
        self.register_buffer("_here", torch.empty(0), persistent=False)  # moves with the module

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the following calls, counted from 0."""
        self.epoch = epoch

    @torch.no_grad()
    def forward(self, images: Any, ids: Tensor | Sequence[int] | None = None, epoch: int | None = None) -> Any:
        """Views and parameters of a batch.

        images: a `RaggedBatch`, a uint8 tensor [B, H, W, 3] or [B, 3, H, W], or a list of images as `collate_images`
        takes them. ids: int64 [B], instead of those of the batch. epoch: instead of that of `set_epoch`.

        Returns (views_VBCHW, params_VBP), on the module's device, and with `color_shift` also shift_VB3. If the
        policies have several sizes, the views are a tuple of V tensors [B, C, H, W] instead.
        Raises ValueError for other images, and for ids that are not one whole number per image.
        """
        device: torch.device = self._here.device  # type: ignore[assignment]
        batch = as_batch(images).to(device, non_blocking=True)
        ids_B = self._ids(batch, ids).to(device)
        self._images += len(ids_B)
        if epoch is None:
            epoch = self._calls if self.epoch is None else self.epoch
        self._calls += 1
        params_VBP = sample_params(ids_B, batch.sizes_B2, self.policies, seed=self.seed, epoch=epoch)
        size = self.policies[0].size
        if all(policy.size == size for policy in self.policies):
            views, shift = self._augment(batch, params_VBP, size)
        else:
            made = [
                self._augment(batch, row_1BP, p.size)
                for row_1BP, p in zip(params_VBP.split(1), self.policies, strict=True)
            ]
            views = tuple(x_1BCHW[0] for x_1BCHW, _ in made)
            shift = (
                torch.cat([shift_1B3 for _, shift_1B3 in made if shift_1B3 is not None]) if self.color_shift else None
            )
        return (views, params_VBP, shift) if self.color_shift else (views, params_VBP)

    def _augment(self, batch: RaggedBatch, params_VBP: Tensor, size: int) -> tuple[Any, Tensor | None]:
        """Views of one size, and their colour shift if it is wanted."""
        kernel = default_blur_kernel(size) if self.blur_kernel is None else self.blur_kernel
        source = (batch.pixels, batch.offsets_B, batch.sizes_B2, params_VBP)
        if self.color_shift:
            return augment(*source, size=size, blur_kernel=kernel, color_shift=True, **self._options)
        return augment(*source, size=size, blur_kernel=kernel, **self._options), None

    def _ids(self, batch: RaggedBatch, given: Tensor | Sequence[int] | None) -> Tensor:
        count = len(batch.sizes_B2)
        if given is None and batch.ids_B is not None:
            return batch.ids_B
        if given is None:
            rank, world = 0, 1
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
            return (self._images + torch.arange(count)) * world + rank
        ids_B = torch.as_tensor(given)
        if ids_B.shape != (count,) or ids_B.is_floating_point() or ids_B.dtype == torch.bool:
            raise ValueError(f"ids must be {count} whole numbers, one per image, got {ids_B.dtype} {list(ids_B.shape)}")
        return ids_B.to(torch.int64)

    def get_extra_state(self) -> dict[str, Any]:
        """The counters of calls and images, for `state_dict`."""
        return {"calls": self._calls, "images": self._images, "epoch": self.epoch}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_extra_state` returned."""
        self._calls, self._images, self.epoch = state["calls"], state["images"], state["epoch"]

    def extra_repr(self) -> str:
        return f"{len(self.policies)} views, size={', '.join(str(policy.size) for policy in self.policies)}"


def as_batch(images: Any) -> RaggedBatch:
    """A batch from what `AugmentViews` takes."""
    if isinstance(images, Tensor):
        if images.dtype != torch.uint8 or images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
            raise ValueError(
                f"images must be a uint8 tensor [B, H, W, 3] or [B, 3, H, W] of pixels from 0 to 255, got "
                f"{images.dtype} {list(images.shape)}"
            )
        if images.shape[1] == images.shape[3] == 3:
            raise ValueError(
                f"images of shape {list(images.shape)} can be channels-first or last; pass a list of arrays"
            )
        pixels = (images if images.shape[3] == 3 else images.permute(0, 2, 3, 1)).contiguous()
        B, H, W, _ = pixels.shape
        device = pixels.device
        return RaggedBatch(
            pixels.view(-1),
            torch.arange(B, device=device) * (H * W * 3),
            torch.tensor((H, W), dtype=torch.int32, device=device).expand(B, 2).contiguous(),
            torch.full((B,), -1, device=device),
        )
    if getattr(images, "_fields", None) == RaggedBatch._fields:  # also fastaugself's own, and as Lightning copies it
        return RaggedBatch(*images)
    if isinstance(images, list | tuple):
        return collate_images([*images])
    raise ValueError(f"images must be a RaggedBatch, a uint8 tensor or a list of images, got {type(images).__name__}")
