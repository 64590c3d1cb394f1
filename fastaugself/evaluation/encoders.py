"""Loads frozen encoders by name: runs, exports, checkpoints of other libraries, timm, torchvision, random weights."""

import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import cast

import torch
from torch import nn

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

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
from .encoder import Encoder
from .pixels import Color

SOURCES = ("timm", "torchvision", "random")
KINDS = (
    "a run folder, an export folder or its model.safetensors, resnet50=CHECKPOINT of another library, timm:NAME, "
    "torchvision:NAME, or random:RUN_OR_NAME"
)


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
    classifiers = models.list_models(module=models)  # not those of detection, segmentation and video
    if name not in classifiers and name in models.list_models():
        raise UsageError(
            f"torchvision:{name} is no image classifier, so it has no features to evaluate; pass one, such as "
            "torchvision:resnet50"
        )
    if name not in classifiers:
        near = difflib.get_close_matches(name, classifiers, n=1)
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
