"""Augmentation in any loop: a module that makes the views of a batch, and the parameters that they were made from.

    augment_views = AugmentViews((ViewPolicy.moco_v2(224),) * 2)
    views, params = augment_views(batch)      # for every batch, here or on a GPU

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, 2 = (height, width).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from .augment import augment
from .backends import Backend, Rounding, Saturation
from .collate import collate_images
from .params import IMAGENET_MEAN, IMAGENET_STD, ViewPolicy, default_blur_kernel
from .ragged import RaggedBatch
from .sampling import sample_params

STATE = "_extra_state"  # PyTorch's name for what `get_extra_state` returns


class AugmentViews(nn.Module):
    """Makes the views of a batch, and the parameters that they were made from.

    policies: one `ViewPolicy` per view, or one for both of two views. size: side of the views in pixels, in place of
    that of the policies: sigma is in pixels of the output and does not change with it. seed: of the parameters.
    color_shift: also return CASSLE's colour shift. blur_kernel: taps of the Gaussian, default a tenth of the view's
    size, as published. mean, std, dtype, channels, rounding, antialias, solarize_before_gray, saturation, backend: as
    `augment` has them. `policies` is also an attribute, for `augself_targets` and `descriptors`.

    A view depends on (seed, epoch, id of the image, number of the view) alone. Where no ids are given or carried by the
    batch, images are numbered in the order in which they come, differently on each process and worker: a repeated
    program repeats its views, but another order or number of processes gives others. Where no epoch is given or set,
    every call counts as an epoch of its own. These two counters are in `state_dict`, from which they may be missing.
    train() and eval() make no difference; `ViewPolicy.none()` gives views without randomness.

    In a worker of a DataLoader, where the module is a copy, `set_epoch` of the original has no effect until the workers
    are started again: with `persistent_workers=True`, make views in the main process, or pass `epoch`.
    """

    def __init__(
        self,
        policies: ViewPolicy | Sequence[ViewPolicy],
        *,
        size: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        channels: Literal[3, 4] = 3,
        seed: int = 0,
        color_shift: bool = False,
        blur_kernel: int | None = None,
        rounding: Rounding = "uint8",
        antialias: bool = True,
        solarize_before_gray: bool = False,
        saturation: Saturation = "blend",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        given = (policies,) * 2 if isinstance(policies, ViewPolicy) else tuple(policies)
        if not given or not all(isinstance(policy, ViewPolicy) for policy in given):
            raise ValueError(
                f"policies must be one ViewPolicy per view, got {policies!r}; pass (ViewPolicy.moco_v2(224),) * 2"
            )
        if size is not None:
            given = tuple(dataclasses.replace(policy, size=size) for policy in given)
        self.policies, self.seed, self.color_shift, self.blur_kernel = given, seed, color_shift, blur_kernel
        self._options: dict[str, Any] = {
            "mean": tuple(mean), "std": tuple(std), "dtype": dtype, "channels": channels, "rounding": rounding,
            "antialias": antialias, "solarize_before_gray": solarize_before_gray, "saturation": saturation,
            "backend": backend,
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

        Returns (views_VBCHW, params_VBP), and with `color_shift` also shift_VB3. If the policies have several sizes,
        the views are a tuple of V tensors [B, C, H, W] instead. They are made on the module's device, and those of
        images on a GPU where these are, if the module is on the CPU.
        Raises ValueError for other images, and for ids that are not one whole number per image.
        """
        batch = as_batch(images)
        device: torch.device = self._here.device  # type: ignore[assignment]
        if device.type != "cpu":
            batch = batch.to(device, non_blocking=True)
        ids_B = self._ids(len(batch.sizes_B2), batch.ids_B if ids is None else ids)
        ids_B = ids_B.to(batch.pixels.device, non_blocking=True)
        epoch = self._epoch() if epoch is None else epoch
        params_VBP = sample_params(ids_B, batch.sizes_B2, self.policies, seed=self.seed, epoch=epoch)
        self._images += len(ids_B)
        self._calls += 1
        views, shift_VB3 = self._views(batch, params_VBP)
        return (views, params_VBP, shift_VB3) if self.color_shift else (views, params_VBP)

    def _views(self, batch: RaggedBatch, params_VBP: Tensor) -> tuple[Tensor | tuple[Tensor, ...], Tensor | None]:
        """Consecutive views of one size are made by one call."""
        sizes = [policy.size for policy in self.policies]
        starts = [0, *(v for v in range(1, len(sizes)) if sizes[v] != sizes[v - 1]), len(sizes)]
        made = [self._augment(batch, params_VBP[first:end], sizes[first]) for first, end in itertools.pairwise(starts)]
        if len(made) == 1:
            return made[0]
        shifts = [shift_VB3 for _, shift_VB3 in made if shift_VB3 is not None]
        views = tuple(x_BCHW for x_VBCHW, _ in made for x_BCHW in x_VBCHW)
        return views, torch.cat(shifts) if shifts else None

    def _augment(self, batch: RaggedBatch, params_VBP: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        """Views of one size, and their colour shift if it is wanted."""
        kernel = default_blur_kernel(size) if self.blur_kernel is None else self.blur_kernel
        source = (batch.pixels, batch.offsets_B, batch.sizes_B2, params_VBP)
        if self.color_shift:
            return augment(*source, size=size, blur_kernel=kernel, color_shift=True, **self._options)
        return augment(*source, size=size, blur_kernel=kernel, **self._options), None

    def _ids(self, count: int, given: Tensor | Sequence[int] | None) -> Tensor:
        if given is None:
            place, places = _place()
            return (self._images + torch.arange(count)) * places + place
        ids_B = torch.as_tensor(given)
        if ids_B.shape != (count,) or ids_B.is_floating_point() or ids_B.dtype == torch.bool:
            raise ValueError(
                f"ids must be {count} whole numbers, one per image, got {ids_B.dtype} {list(ids_B.shape)}; leave them "
                "out to have the images numbered"
            )
        return ids_B.to(torch.int64)

    def _epoch(self) -> int:
        if self.epoch is not None:
            return self.epoch
        worker = get_worker_info()
        # Workers are copies that begin anew in every epoch, with a seed of their own that is drawn for the epoch.
        return self._calls if worker is None else (worker.seed - worker.id + self._calls) % (1 << 32)

    def get_extra_state(self) -> Tensor:
        """The numbers of calls and images, and the epoch or -1, for `state_dict`: a tensor, as in all of its values."""
        return torch.tensor([self._calls, self._images, -1 if self.epoch is None else self.epoch])

    def set_extra_state(self, state: Tensor) -> None:
        """Restores what `get_extra_state` returned."""
        self._calls, self._images, epoch = state.tolist()
        self.epoch = None if epoch < 0 else epoch

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, *rest)
        if prefix + STATE in missing:  # a checkpoint of a model without this module in it
            missing.remove(prefix + STATE)

    def extra_repr(self) -> str:
        return f"{len(self.policies)} views, size={', '.join(str(policy.size) for policy in self.policies)}"


def _place() -> tuple[int, int]:
    """The number of this process or worker among all that number images, and how many they are."""
    rank, world = 0, 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    worker = get_worker_info()
    return (rank, world) if worker is None else (rank * worker.num_workers + worker.id, world * worker.num_workers)


def as_batch(images: Any) -> RaggedBatch:
    """A batch from what `AugmentViews` takes."""
    if isinstance(images, Tensor):
        return _batch_of_tensor(images)
    if getattr(images, "_fields", None) == RaggedBatch._fields:  # also fastaugself's own, and as Lightning copies it
        return RaggedBatch(*images)
    if isinstance(images, list | tuple):
        return collate_images(images)
    raise ValueError(
        f"images must be a RaggedBatch, a uint8 tensor or a list of images, got {type(images).__name__}; "
        "pass collate_fn=collate_images to the DataLoader, or torch.from_numpy(images) for an array [B, H, W, 3]"
    )


def _batch_of_tensor(images: Tensor) -> RaggedBatch:
    shape = list(images.shape)
    if images.dtype != torch.uint8 or images.ndim != 4 or 3 not in (shape[1], shape[3]) or 0 in shape:
        raise ValueError(
            "images must be a uint8 tensor [B, H, W, 3] or [B, 3, H, W] of pixels from 0 to 255, got "
            f"{images.dtype} {shape}: leave out ToTensor and normalisation, which the augmentation does at its end"
        )
    if shape[1] == shape[3] == 3:
        raise ValueError(
            f"images of shape {shape} can be channels first or last; pass a list of arrays [H, W, 3]: "
            "[*images.numpy()], or [*images.permute(0, 2, 3, 1).numpy()] if channels come first"
        )
    pixels = (images if shape[3] == 3 else images.permute(0, 2, 3, 1)).contiguous()
    B, H, W, _ = pixels.shape
    sizes_B2 = torch.empty(B, 2, dtype=torch.int32, device=pixels.device)
    sizes_B2[:, 0], sizes_B2[:, 1] = H, W
    offsets_B = torch.arange(B, device=pixels.device) * (H * W * 3)
    return RaggedBatch(pixels.view(-1), offsets_B, sizes_B2, torch.full((B,), -1, device=pixels.device))
