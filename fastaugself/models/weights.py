"""Loads backbone weights from exports and from checkpoints of this and other libraries (torchvision, timm, MoCo, ...).

Parameter names are those of torchvision's ResNet (timm has the same) or of timm's ViT, with a library-specific prefix.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RunError, UsageError

# Prefixes of the trained encoder's parameters, most specific first: MoCo, MoCo v3, SimSiam and SimCLR, solo-learn and
# lightly, this project; the last ones are for state dicts of the backbone only.
PREFIXES = (
    "module.encoder_q.", "encoder_q.", "module.base_encoder.", "base_encoder.", "module.online_encoder.",
    "online_encoder.", "method.backbone.", "module.backbone.", "backbone.", "module.encoder.", "encoder.",
    "module.", "",
)  # fmt: skip
FIRST_LAYERS = ("conv1.weight", "patch_embed.proj.weight")  # of a ResNet and of a ViT
CONTAINER_KEYS = ("backbone", "state_dict", "model", "student", "teacher", "net", "state", "learner")
CLASSIFIERS = ("fc.", "head.", "classifier.")


def read_weights(path: Path, names: Collection[str] = FIRST_LAYERS) -> dict[str, Tensor]:
    """Reads the state dict of a backbone from a `.safetensors` file or a torch.save checkpoint.

    Checkpoints are loaded with `weights_only=True`, so that untrusted files cannot run code. If a checkpoint holds
    several encoders, the trained one is returned, not its EMA copy. Names have no prefix; a classifier is left out.
    names: parameters that identify the backbone, by default the first layer of a ResNet or ViT; of the known prefixes,
    the one with most of them is used.
    Raises UsageError if the file is missing or holds no backbone, RunError if it is damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; pass a .safetensors file or a torch.save checkpoint")
    try:
        if path.suffix == ".safetensors":
            content: Any = read_safetensors(path)[0]
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error).split(". In PyTorch 2.6")[0]  # the rest of torch's message suggests weights_only=False
        reason = " ".join(text.split())[:300]
        raise RunError(
            f"{path} cannot be read as weights ({type(error).__name__}: {reason}): pass a .safetensors file, or a "
            f"torch.save checkpoint that holds only tensors and plain values"
        ) from None
    state = _tensors(content)
    prefix = max(PREFIXES, key=lambda prefix: sum(prefix + name in state for name in names))
    if not any(prefix + name in state for name in names):
        kind = "ResNet or ViT" if names is FIRST_LAYERS else "weights of this model"
        some = ", ".join(sorted(state)[:4]) or "no tensors"
        raise UsageError(f"{path} holds no {kind} under a known prefix; its first names are {some}")
    encoder = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in encoder.items() if name in names or not name.startswith(CLASSIFIERS)}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a `.safetensors` file.

    The library's own functions for files refuse names that are not UTF-8. Raises SafetensorError if it is damaged.
    """
    from safetensors.torch import load

    data = path.read_bytes()
    tensors = load(data)  # checks the header, too
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return tensors, json.loads(header).get("__metadata__") or {}


def _tensors(content: Any) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: the innermost dictionary of tensors under one of `CONTAINER_KEYS`."""
    if not isinstance(content, dict):
        return {}
    if any(isinstance(value, Tensor) and name.count(".") for name, value in content.items()):
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for key in CONTAINER_KEYS:
        found = _tensors(content.get(key))
        if found:
            return found
    return {}


def load_weights(backbone: nn.Module, path: Path, *, strict: bool = True) -> None:
    """Loads the weights of `read_weights(path)` into a backbone.

    strict: the backbone is a ResNet or ViT, and the file must hold no other parameters but a classifier. False for any
    other architecture: the file must hold the backbone's parameters; further ones are ignored.
    Raises RunError, with the first mismatch, if names or shapes differ; the backbone is then unchanged.
    """
    expected = backbone.state_dict()
    state = read_weights(path) if strict else read_weights(path, expected.keys())
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in expected] if strict else []
    other = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if missing or extra or other:
        what = (
            f"{other[0]} has shape {list(state[other[0]].shape)} in the file and {list(expected[other[0]].shape)} here"
            if other
            else f"the file lacks {missing[0]}"
            if missing
            else f"the file also has {extra[0]}"
        )
        raise RunError(
            f"{path} does not fit this backbone: {what}; pass a matching architecture "
            f"(--backbone.name, .width and .stem; in eval, the NAME of NAME=FILE)"
        )
    backbone.load_state_dict(state, strict=False)
