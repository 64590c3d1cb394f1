"""Frozen encoders by name: a run folder, an exported file, any model of timm or torchvision, random weights."""

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from ..errors import RunError, UsageError
from ..export.backbone import WEIGHTS
from ..models.build import Backbone, build_backbone, image_size_option, timm_with
from ..models.weights import load_weights
from ..runs.checkpoint import checkpoints, load
from ..runs.folder import read_pretrain

Color = tuple[float, float, float]
PREFIX = "method.backbone."  # of the backbone's parameters in a checkpoint
KINDS = (
    "a run folder, an export folder or its model.safetensors, resnet50=CHECKPOINT of another program, timm:NAME, "
    "torchvision:NAME, or random:RUN_OR_NAME"
)


@dataclass(frozen=True)
class Encoder:
    """A frozen backbone from normalised images to pooled features, in evaluation mode.

    name: short, for tables. source: what it was loaded from. size: side in pixels of the images it takes. mean, std:
    of the colours, in [0, 1]. digest: of everything that its features depend on but the images.
    """

    name: str
    source: str
    module: nn.Module
    size: int
    mean: Color
    std: Color
    digest: str


def load_encoder(spec: str, *, size: int | None = None, seed: int = 0) -> Encoder:
    """The encoder that `spec` names, on the CPU.

    spec: a run folder (its newest checkpoint, else its export), an export folder or the `.safetensors` in it,
    `resnet50=FILE` (a checkpoint of another program, see `models.weights`), `timm:NAME`, `torchvision:NAME` (their
    pretrained weights; `NAME=FILE` reads a state dict instead), or `random:` and a run folder (its own initial
    weights), `resnet18`, `timm:NAME`, ...: that architecture at random weights. `LABEL@SPEC` names it in tables.
    size: side of its images, default its own. seed: of random weights.

    Raises UsageError for a name that cannot be resolved, RunError for a damaged file.
    """
    label, marked, rest = spec.partition("@")
    if not (marked and label and "/" not in label and not Path(spec).exists()):
        label, rest = "", spec
    if size is not None and size < 8:
        raise UsageError(f"--size must be at least 8 pixels, got {size}")
    module, own, mean, std, name = _random(rest[7:], seed, size) if rest.startswith("random:") else _trained(rest, size)
    module.requires_grad_(False).eval()
    side = size or own
    digest = _digest(module, f"{side} {mean} {std} {module!r}")  # strides and activations stand in the repr
    return Encoder(label or name, rest, module, side, mean, std, digest)


Parts = tuple[nn.Module, int, Color, Color, str]


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
        raise UsageError(f"no model {spec}: no such file or folder; a model is {KINDS}")
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UsageError(f"{spec} is no model; a model is {KINDS}")
        return _exported(path, size)
    if (path / WEIGHTS).exists():
        return _exported(path / WEIGHTS, size)
    if (path / "config.json").exists():
        return _run(path, size)
    raise UsageError(f"{path} holds neither a run (config.json) nor an export ({WEIGHTS}); a model is {KINDS}")


def _random(spec: str, seed: int, size: int | None) -> Parts:
    """The architecture that `spec` names, untrained: the control without which no gain can be claimed."""
    if spec.startswith("timm:"):
        torch.manual_seed(seed)
        return _timm(spec[5:], size, pretrained=False)
    if spec.startswith("torchvision:"):
        torch.manual_seed(seed)
        return _torchvision(spec[12:], pretrained=False)
    config = read_pretrain(Path(spec)) if (Path(spec) / "config.json").exists() else None
    torch.manual_seed(config.seed if config else seed)
    module, _ = build_backbone(config.backbone if config else Backbone(name=spec), image_size=size)
    if config is None:
        return module, 224, IMAGENET_MEAN, IMAGENET_STD, f"random-{spec}"
    return module, config.view.size, config.augment.mean, config.augment.std, f"random-{Path(spec).name}"


def _run(run: Path, side: int | None) -> Parts:
    config = read_pretrain(run)
    saved = checkpoints(run / "checkpoints")
    if not saved:
        if (run / "export" / WEIGHTS).exists():
            module, size, mean, std, _ = _exported(run / "export" / WEIGHTS, side)
            return module, size, mean, std, run.name
        raise UsageError(f"{run} holds no checkpoint and no export yet: train it first")
    try:
        learner = load(saved[-1])["state"]["learner"]
    except UsageError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise RunError(f"{saved[-1]} cannot be read ({said}); copy or train it again") from None
    state = {name.removeprefix(PREFIX): value for name, value in learner.items() if name.startswith(PREFIX)}
    module, _ = build_backbone(config.backbone, image_size=side or config.view.size)
    _load(module, state, saved[-1])
    return module, config.view.size, config.augment.mean, config.augment.std, run.name


def _exported(path: Path, side: int | None) -> Parts:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not a whole .safetensors file ({error}); export it again") from None
    try:
        described = json.loads((path.parent / "config.json").read_text())
        own, pretrained = described["fastaugself"], described["pretrained_cfg"]
        mean, std = cast(Color, tuple(pretrained["mean"])), cast(Color, tuple(pretrained["std"]))
        size = int(pretrained["input_size"][1])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path.parent / 'config.json'} does not describe the model ({type(error).__name__}: {error}): keep the "
            f"config.json that `fastaugself export` writes beside it"
        ) from None
    name = own["backbone"] if own["backbone"].startswith("resnet") else "timm:" + own["backbone"]
    name = metadata.get("backbone", name)
    module, _ = build_backbone(Backbone(name=name, width=own["width"], stem=own["stem"]), image_size=side or size)
    _load(module, state, path)
    folder = path.resolve().parent
    return module, size, mean, std, folder.parent.name if folder.name == "export" else folder.name


def _load(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        why = lines[min(1, len(lines) - 1)].strip()
        raise RunError(f"{path} does not fit the backbone it describes: {why}") from None


def _timm(name: str, side: int | None, *, pretrained: bool) -> Parts:
    name, _, file = name.partition("=")
    timm = timm_with(name)
    try:
        options = image_size_option(name, side)
        model = timm.create_model(name, pretrained=pretrained and not file, num_classes=0, **options)
    except Exception as error:
        raise RunError(
            f"the weights of timm:{name} cannot be had ({type(error).__name__}: {error}); where there is no network, "
            f"pass timm:{name}=FILE with a state dict"
        ) from None
    if file:
        _load_loosely(model, Path(file))
    known = timm.data.resolve_data_config({}, model=model)
    return model, int(known["input_size"][1]), tuple(known["mean"]), tuple(known["std"]), name


def _torchvision(name: str, *, pretrained: bool) -> Parts:
    name, _, file = name.partition("=")
    try:
        from torchvision import models
    except Exception as error:
        raise UsageError(
            f"torchvision:{name} needs the torchvision that matches torch {torch.__version__}: install both from the "
            f"same place ({error})"
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
            f"the weights of torchvision:{name} cannot be had ({type(error).__name__}: {error}); where there is no "
            f"network, pass torchvision:{name}=FILE with a state dict"
        ) from None
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            break
    else:
        raise UsageError(f"torchvision:{name} is no classifier: its features are not known; pass one such as resnet50")
    if file:
        _load_loosely(model, Path(file))
    if weights is None:
        return model, 224, IMAGENET_MEAN, IMAGENET_STD, name
    own = weights.transforms()
    return model, int(own.crop_size[0]), tuple(own.mean), tuple(own.std), name


def _load_loosely(model: nn.Module, path: Path) -> None:
    """A state dict that may also hold a classifier."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: dict[str, Any] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except Exception as error:
        raise RunError(f"{path} is not a state dict ({type(error).__name__}: {error})") from None
    missing = model.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise UsageError(f"{path} lacks {missing[0]} and {len(missing) - 1} more parameters of the model")


def _digest(module: nn.Module, described: str) -> str:
    digest = hashlib.blake2b(described.encode(), digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
