"""Loads frozen encoders by name: runs, exports, checkpoints of other libraries, timm, torchvision, random weights."""

import difflib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from ..data.cores import available_cores
from ..data.inputs.opening import read_rgb, upright_rgb
from ..data.parallel import ordered_map
from ..distributed import DeviceName, resolve_device
from ..errors import RunError, UsageError
from ..export.backbone import WEIGHTS
from ..files import read_text
from ..models.beside import import_torchvision
from ..models.build import Backbone, build_backbone, image_size_option, timm_with
from ..models.resnet import LAYERS
from ..models.weights import load_weights, read_safetensors
from ..runs.checkpoint import checkpoints
from ..runs.folder import read_pretrain
from ..runs.open import load_backbone, load_state
from .pixels import Color, normalise, prepare

SOURCES = ("timm", "torchvision", "random")
KINDS = (
    "a run folder, an export folder or its model.safetensors, resnet50=CHECKPOINT of another library, timm:NAME, "
    "torchvision:NAME, or random:RUN_OR_NAME"
)


class Encoder(nn.Module):
    """A frozen backbone in evaluation mode: normalised images [B, 3, size, size] to pooled features [B, num_features].

    name: short name for tables. source: the spec it was loaded from, without label. module: the backbone. size: side
    of its input images in pixels. mean, std: of the normalisation, in [0, 1]. digest: hash of everything besides the
    images that determines its features (weights, architecture, input size, normalisation).
    """

    def __init__(self, name: str, source: str, module: nn.Module, size: int, mean: Color, std: Color, digest: str):
        super().__init__()
        self.name, self.source, self.module = name, source, module
        self.size, self.mean, self.std, self.digest = size, mean, std, digest

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features [B, num_features] of normalised images."""
        f_BD = self.module(x_BCHW)
        if not isinstance(f_BD, Tensor):
            raise UsageError(f"{self.name} returns {type(f_BD).__name__}, expected one tensor of features")
        return f_BD.flatten(1)

    @cached_property
    def num_features(self) -> int:
        """Number of features of an image."""
        parameter = next(self.parameters(), None)
        with torch.inference_mode():
            x_BCHW = torch.zeros(1, 3, self.size, self.size, device=None if parameter is None else parameter.device)
            return int(self(x_BCHW).shape[1])

    def transform(self, image: Any) -> Tensor:
        """The normalised input float32 [3, size, size] of one image, prepared as `fastaugself eval` does.

        The shorter side is resized (bicubic), then the centre is cropped. image: a path, a PIL image, a uint8 array
        [H, W, 3] or [H, W], or a uint8 tensor [3, H, W] or [H, W, 3]. Raises UsageError for anything else, RunError
        for a file that cannot be read.
        """
        return normalise(torch.from_numpy(self._pixels(image).copy())[None], self.mean, self.std)[0]

    def embed(self, images: Any, *, batch_size: int = 64, workers: int = 0) -> Tensor:
        """Features float32 [N, num_features] on the CPU, computed on the encoder's device.

        images: an iterable of images as `transform` takes them (one batch is in memory at a time), or a float tensor
        [N, 3, H, W] that is already normalised. workers: threads that read and resize, 0 for one per core.
        Raises as `transform`.
        """
        if isinstance(images, str | os.PathLike | Image.Image):
            raise UsageError(f"embed takes several images, got one {type(images).__name__}: pass [image]")
        parameter = next(self.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        found = [torch.empty(0, 0)]
        with torch.inference_mode():
            for x_BCHW in self._batches(images, batch_size, workers or available_cores()):
                found.append(self(x_BCHW.to(device)).float().cpu())
        return torch.cat(found[1:]) if len(found) > 1 else torch.empty(0, self.num_features)

    def _batches(self, images: Any, batch_size: int, workers: int) -> Iterator[Tensor]:
        """Normalised images [B, 3, H, W]."""
        if isinstance(images, Tensor) and images.is_floating_point():
            if images.ndim != 4 or images.shape[1] != 3:
                raise UsageError(f"normalised images must be [N, 3, H, W], got {list(images.shape)}")
            yield from images.split(batch_size)
            return
        prepared = ordered_map(self._pixels, _iterable(images), workers=workers, ahead=2 * batch_size)
        while chunk := list(itertools.islice(prepared, batch_size)):
            yield normalise(torch.from_numpy(np.stack(chunk)), self.mean, self.std)

    def _pixels(self, image: Any) -> NDArray[np.uint8]:
        return prepare(as_image(image), self.size, self.size)

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, {self.source!r}, size={self.size})"


def as_image(image: Any) -> Image.Image:
    """A path, PIL image, uint8 array or uint8 tensor as an RGB image.

    Raises UsageError for anything else, RunError for a file that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return read_rgb(Path(image))
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, Tensor):
        image = image.cpu().numpy()
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
            image = image.transpose(1, 2, 0)
    if not isinstance(image, np.ndarray):
        raise UsageError(f"an image must be a path, a PIL image, an array or a tensor, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise UsageError(
            f"an image must be uint8 [H, W, 3] or [H, W], got {image.dtype} {list(image.shape)}: pass pixels from 0 to "
            "255, or a batch that is already normalised as one float tensor [N, 3, H, W]"
        )
    return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).convert("RGB")


def _iterable(images: Any) -> Iterable[Any]:
    try:
        iter(images)
    except TypeError:
        raise UsageError(f"embed takes images, got {type(images).__name__}: pass a list of paths or images") from None
    return cast(Iterable[Any], images)


def load_encoder(
    spec: str | os.PathLike[str], *, device: DeviceName = "auto", size: int | None = None, seed: int = 0
) -> Encoder:
    """Loads the encoder that `spec` names.

    spec: one of
    - a run folder: its newest checkpoint, else its export;
    - an export folder, or the `.safetensors` file in it;
    - `resnet50=FILE`: a checkpoint of another library, see `models.weights`;
    - `timm:NAME`, `torchvision:NAME`: the library's pretrained weights; with `NAME=FILE`, a state dict instead;
    - `random:RUN`, `random:resnet18`, `random:timm:NAME`: the initial weights of a run, or an untrained architecture.

    `LABEL@SPEC` sets the name in tables. device: auto is CUDA if available. size: side of the input images in pixels,
    default the encoder's own. seed: of random weights; a run's initial weights have the run's own seed.
    Raises UsageError for an unknown name, RunError for a damaged file.
    """
    spec = os.fspath(spec)
    label, marked, rest = spec.partition("@")
    if not (marked and label and "/" not in label and not Path(spec).exists()):
        label, rest = "", spec
    kind, given, value = rest.partition("=") if "=" in rest else rest.partition(":")
    if not rest or (given and not value and (kind.startswith("resnet") or kind.split(":")[0] in SOURCES)):
        what = f"model {spec}: nothing follows {spec[-1:]}" if spec else "a model is empty"
        raise UsageError(f"{what}; pass {KINDS}")
    if size is not None and size < 8:
        raise UsageError(f"--size must be at least 8 pixels, got {size}")
    random = rest.startswith("random:")
    module, default, mean, std, name = _random(rest[7:], seed, size) if random else _trained(rest, size)
    module.requires_grad_(False).eval()
    side = size or default
    digest = _digest(module, f"{side} {mean} {std} {module!r}")  # the repr has strides and activations
    return Encoder(label or name, rest, module, side, mean, std, digest).eval().to(resolve_device(device))


Parts = tuple[nn.Module, int, Color, Color, str]  # module, input size, mean, std, name


def _trained(spec: str, size: int | None) -> Parts:
    if spec.startswith("timm:"):
        return _timm(spec[5:], size, pretrained=True)
    if spec.startswith("torchvision:"):
        return _torchvision(spec[12:], pretrained=True)
    name, given, file = spec.partition("=")
    if given and name.startswith("resnet"):
        module, _ = build_backbone(Backbone(name=name))
        load_weights(module, Path(file))
        return module, 224, IMAGENET_MEAN, IMAGENET_STD, Path(file).stem
    path = Path(spec)
    if not path.exists():
        raise UsageError(f"model {spec}: no such file or folder; pass {KINDS}")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UsageError(f"{spec} is not a .safetensors file{_around(path)}; pass {KINDS}")
        return _exported(path, size)
    if (path / WEIGHTS).exists():
        return _exported(path / WEIGHTS, size)
    if (path / "config.json").exists():
        return _run(path, size)
    raise UsageError(f"{path} holds neither a run (config.json) nor an export ({WEIGHTS}){_around(path)}; pass {KINDS}")


def _around(path: Path) -> str:
    """A hint at the run that a file or folder is a part of; empty if there is none."""
    for folder in path.absolute().parents[:2]:
        if (folder / "config.json").is_file() and ((folder / "checkpoints").is_dir() or (folder / WEIGHTS).is_file()):
            return f" but a part of {os.path.relpath(folder)}: pass that folder"
    return ""


def _random(spec: str, seed: int, size: int | None) -> Parts:
    """An untrained encoder: the baseline that pretraining must beat."""
    if spec.startswith("timm:"):
        torch.manual_seed(seed)
        return _timm(spec[5:], size, pretrained=False)
    if spec.startswith("torchvision:"):
        torch.manual_seed(seed)
        return _torchvision(spec[12:], pretrained=False)
    config = read_pretrain(Path(spec)) if (Path(spec) / "config.json").exists() else None
    if config is None and spec not in LAYERS:
        near = difflib.get_close_matches(spec, LAYERS, n=1)
        hint = f"did you mean random:{near[0]}? Or pass" if near else "pass"
        raise UsageError(
            f"random:{spec}: {spec} is neither a run folder nor an architecture; {hint} random:RUN, "
            f"random:{', random:'.join(LAYERS)}, random:timm:NAME or random:torchvision:NAME"
        )
    torch.manual_seed(config.seed if config else seed)
    module, _ = build_backbone(config.backbone if config else Backbone(name=spec), image_size=size)
    if config is None:
        return module, 224, IMAGENET_MEAN, IMAGENET_STD, f"random-{spec}"
    return module, config.view.size, config.augment.mean, config.augment.std, f"random-{Path(spec).name}"


def _run(run: Path, side: int | None) -> Parts:
    if not checkpoints(run / "checkpoints") and (run / "export" / WEIGHTS).exists():
        module, size, mean, std, _ = _exported(run / "export" / WEIGHTS, side)
        return module, size, mean, std, run.name
    config, module, *_ = load_backbone(run, image_size=side)
    return module, config.view.size, config.augment.mean, config.augment.std, run.name


def _exported(path: Path, side: int | None) -> Parts:
    from safetensors import SafetensorError

    try:
        state, metadata = read_safetensors(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not a complete .safetensors file ({error}); export it again") from None
    try:
        described = json.loads(read_text(path.parent / "config.json"))
        backbone, pretrained = described["fastaugself"], described["pretrained_cfg"]
        mean, std = cast(Color, tuple(pretrained["mean"])), cast(Color, tuple(pretrained["std"]))
        size = int(pretrained["input_size"][1])
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent / 'config.json'} is missing: copy the config.json that `fastaugself export` wrote beside "
            f"{path.name}, or export the run again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path.parent / 'config.json'} does not describe the model ({why}): copy the config.json that "
            f"`fastaugself export` wrote beside {path.name}, or export the run again"
        ) from None
    name = backbone["backbone"] if backbone["backbone"].startswith("resnet") else "timm:" + backbone["backbone"]
    config = Backbone(metadata.get("backbone", name), width=backbone["width"], stem=backbone["stem"])
    module, _ = build_backbone(config, image_size=side or size)
    load_state(module, state, path)
    folder = path.resolve().parent
    return module, size, mean, std, folder.parent.name if folder.name == "export" else folder.name


def _timm(name: str, side: int | None, *, pretrained: bool) -> Parts:
    name, _, file = name.partition("=")
    timm = timm_with(name)
    try:
        options = image_size_option(name, side)
        model = timm.create_model(name, pretrained=pretrained and not file, num_classes=0, **options)
    except Exception as error:
        raise RunError(
            f"the weights of timm:{name} cannot be downloaded ({type(error).__name__}: {error}); without a network, "
            f"pass timm:{name}=FILE with a state dict"
        ) from None
    if file:
        load_weights(model, Path(file), strict=False)
    known = timm.data.resolve_data_config({}, model=model)
    return model, int(known["input_size"][1]), tuple(known["mean"]), tuple(known["std"]), name


def _torchvision(name: str, *, pretrained: bool) -> Parts:
    name, _, file = name.partition("=")
    try:
        models = import_torchvision().models
    except Exception as error:
        raise UsageError(
            f"torchvision:{name} needs a torchvision that matches torch {torch.__version__} ({error}): "
            "pip install --no-deps torchvision"
        ) from None
    if name not in models.list_models():
        near = difflib.get_close_matches(name, models.list_models(), n=1)
        hint = f"; did you mean torchvision:{near[0]}?" if near else ""
        raise UsageError(f"torchvision has no model {name}{hint}")
    try:
        weights = models.get_model_weights(name).DEFAULT if pretrained and not file else None
        model = models.get_model(name, weights=weights)
    except Exception as error:
        raise RunError(
            f"the weights of torchvision:{name} cannot be downloaded ({type(error).__name__}: {error}); without "
            f"a network, pass torchvision:{name}=FILE with a state dict"
        ) from None
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            break
    else:
        raise UsageError(f"torchvision:{name} has no classifier to remove: pass an image classifier, such as resnet50")
    if file:
        load_weights(model, Path(file), strict=False)
    if weights is None:
        return model, 224, IMAGENET_MEAN, IMAGENET_STD, name
    preset = weights.transforms()
    return model, int(preset.crop_size[0]), tuple(preset.mean), tuple(preset.std), name


def _digest(module: nn.Module, described: str) -> str:
    digest = hashlib.blake2b(described.encode(), digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
