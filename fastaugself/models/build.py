"""Backbones by name: this project's ResNets and all models of timm."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from ..errors import UsageError
from .beside import import_timm
from .norm import BatchNorm2d
from .resnet import LAYERS, ResNet

_RESNET = ("width", "stem", "zero_init_residual", "init")  # options of this project's ResNets only


@dataclass(frozen=True)
class Backbone:
    """The encoder that is pretrained."""

    name: str = "resnet50"
    """resnet18, resnet34, resnet50, or timm:NAME for any model of timm (needs timm and torchvision)."""
    width: int = 64
    """Channels of the first stage of a ResNet; 64 is the standard."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """Stem of a ResNet: 7x7 stride 2 and max-pooling (imagenet), or 3x3 stride 1 for images of about 32 px (small)."""
    batch_norm: Literal["plain", "sync", "split"] = "plain"
    """Batch statistics per process (plain), over all processes (sync; backbone and heads), or per group of samples as
    on many GPUs (split; ResNets only)."""
    sync_by: Literal["torch", "apex"] = "torch"
    """Implementation of synchronised batch norm on CUDA: PyTorch's or NVIDIA apex's."""
    bn_group_size: int = 32
    """Number of samples per group with --backbone.batch-norm split; 32 is a batch of 256 on 8 GPUs."""
    zero_init_residual: bool = False
    """Initialise the last batch norm of each residual branch to zero."""
    init: Literal["kaiming", "torch"] = "kaiming"
    """Initialisation of convolutions: Kaiming normal, fan-out (torchvision), or PyTorch's default (AugSelf's code)."""
    freeze_patch_embed: bool = False
    """Freeze the patch embedding of a ViT at its random initialisation, as in MoCo v3 (timm models only)."""
    drop_path: float = 0.0
    """Stochastic depth: maximum probability that a residual branch is skipped, which rises linearly with the depth
    (timm models only; not in EMA copies)."""
    patch_drop: float = 0.0
    """Token dropout: fraction of a ViT's patch tokens that are left out of every forward pass in training, which saves
    time and memory in proportion (timm models only; not in EMA copies)."""

    def __post_init__(self) -> None:
        for name in ("drop_path", "patch_drop"):
            option, rate = "--backbone." + name.replace("_", "-"), getattr(self, name)
            if not 0 <= rate < 1:
                raise UsageError(f"{option} must be at least 0 and below 1, got {rate}; pass {option} 0")
            if rate and not self.name.startswith("timm:"):
                raise UsageError(
                    f"{option} {rate} needs a model of timm, got --backbone.name {self.name}; pass {option} 0"
                )
        if self.name.startswith("timm:"):
            changed = [f for f in fields(self) if f.name in _RESNET and getattr(self, f.name) != f.default]
            if changed:
                options = ", ".join("--backbone." + f.name.replace("_", "-") for f in changed)
                raise UsageError(
                    f"--backbone.name {self.name}: {options} only apply to this project's ResNets; pass "
                    f"{' '.join(_as_option(f.name, f.default) for f in changed)}"
                )
        elif self.name not in LAYERS:
            near = difflib.get_close_matches(self.name.lower(), LAYERS, n=1, cutoff=0.85) or ["resnet50"]
            timms = "" if self.name not in _timm_models() else f", or --backbone.name timm:{self.name}"
            raise UsageError(
                f"--backbone.name {self.name!r} is unknown (known: {', '.join(LAYERS)}, timm:NAME); pass "
                f"--backbone.name {near[0]}{timms}"
            )
        elif self.freeze_patch_embed:
            raise UsageError(
                f"--backbone.freeze-patch-embed needs a ViT of timm, got --backbone.name {self.name}; pass "
                "--backbone.no-freeze-patch-embed"
            )
        elif self.width < 1:
            raise UsageError(f"--backbone.width must be at least 1, got {self.width}; pass --backbone.width 64")

    @property
    def sync(self) -> bool:
        return self.batch_norm == "sync"


def _as_option(name: str, value: object) -> str:
    """A field of `Backbone` as it is written on the command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--backbone.{'' if value else 'no-'}{option}"
    return f"--backbone.{option} {value}"


def _timm_models() -> list[str]:
    """Names of timm's models; empty if timm cannot be imported."""
    try:
        models: list[str] = import_timm().list_models()
    except Exception:  # not installed, or built for another torch
        return []
    return models


def build_backbone(
    config: Backbone,
    *,
    image_size: int | None = None,
    other_sizes: Mapping[str, int] = MappingProxyType({}),
    bn_group_size: int = 0,
) -> tuple[nn.Module, int]:
    """Builds a backbone without classifier. Returns it and the width of its pooled features.

    image_size: side of the images in pixels, for timm models with a fixed input size. other_sizes: sides of further
    images that it must take (local crops), by their option with {} for the size. bn_group_size: number of consecutive
    samples per group of batch statistics in ResNets (training only); 0 is the whole input.
    Raises UsageError if timm is needed but missing, for an unknown model of timm, with the closest match, and for a
    model that does not take another size.
    """
    if config.name.startswith("timm:"):
        return _timm(config, image_size, other_sizes)
    grouped = config.sync or bn_group_size > 0
    model = ResNet(
        config.name,
        width=config.width,
        stem=config.stem,
        norm=partial(BatchNorm2d, sync=config.sync, group_size=bn_group_size) if grouped else nn.BatchNorm2d,
        zero_init_residual=config.zero_init_residual,
    )
    if config.init == "torch":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return model, model.num_features


def _timm(config: Backbone, image_size: int | None, other_sizes: Mapping[str, int]) -> tuple[nn.Module, int]:
    name = config.name.removeprefix("timm:")
    timm = timm_with(name)
    options: dict[str, Any] = dict(image_size_option(name, image_size))
    pretrained = timm.get_pretrained_cfg(name)
    if other_sizes and pretrained is not None and pretrained.fixed_input_size:
        options["dynamic_img_size"] = True  # a ViT then resizes its position embedding to the images
        _check_sizes(timm, name, image_size, options, other_sizes)
    for option, rate in (("drop_path", config.drop_path), ("patch_drop", config.patch_drop)):
        options |= {f"{option}_rate": rate} if rate else {}
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except TypeError as error:
        for option in ("drop_path", "patch_drop"):
            if f"{option}_rate" in str(error):
                given = "--backbone." + option.replace("_", "-")
                raise UsageError(f"{given}: timm:{name} has no such dropout; pass {given} 0") from None
        raise
    if config.freeze_patch_embed:
        if not hasattr(model, "patch_embed"):
            raise UsageError(
                f"--backbone.freeze-patch-embed: timm:{name} has no patch embedding; pass "
                "--backbone.no-freeze-patch-embed"
            )
        model.patch_embed.requires_grad_(False)
    if config.sync:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model, int(model.num_features)


def _check_sizes(
    timm: Any, name: str, image_size: int | None, options: dict[str, Any], sizes: Mapping[str, int]
) -> None:
    """Raises UsageError for an image size that a model of timm does not take; runs it on the meta device."""
    option, size = next(iter(sizes.items()))
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except TypeError:
        raise UsageError(
            f"{option.format(size)}: timm:{name} takes images of one size; pass {option.format(image_size)}, or "
            "--backbone.name timm:vit_small_patch16_224"
        ) from None
    for option, size in sizes.items():
        try:
            model(torch.empty(2, 3, size, size, device="meta"))
        except (AssertionError, RuntimeError, ValueError) as error:
            patch = int(getattr(getattr(model, "patch_embed", None), "patch_size", (size,))[0])
            instead = size // patch * patch
            other = option.format(instead if 0 < instead < size else image_size)
            raise UsageError(
                f"{option.format(size)}: timm:{name} does not take images of {size} px ({error}); pass {other}"
            ) from None


def timm_with(name: str) -> Any:
    """Imports timm and checks that it has a model `name`. Returns the module timm.

    Raises UsageError if timm or its torchvision cannot be imported, or if there is no such model, with the closest
    match.
    """
    try:
        timm = import_timm()
    except Exception as error:  # not installed, or built for another torch
        raise UsageError(
            f"timm:{name} needs timm and a torchvision that matches torch {torch.__version__} ({error}): "
            "pip install --no-deps timm torchvision"
        ) from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=1)
        raise UsageError(f"timm has no model {name}" + (f"; did you mean timm:{near[0]}?" if near else ""))
    return timm


def image_size_option(name: str, image_size: int | None) -> dict[str, int]:
    """The `img_size` argument of timm.create_model, if the model has a fixed input size other than `image_size`."""
    pretrained = import_timm().get_pretrained_cfg(name)
    fixed = pretrained is not None and pretrained.fixed_input_size
    return {"img_size": image_size} if fixed and image_size and image_size != pretrained.input_size[-1] else {}
