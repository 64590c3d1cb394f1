"""Weights of a backbone from whatever file holds them: an export, a checkpoint of others, torchvision's, timm's.

Names are those of torchvision's ResNet (timm's are the same) or of timm's ViT, under some prefix.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RunError, UsageError

# Where known programs keep the encoder that is trained, the more telling first: MoCo, MoCo v3, SimSiam and SimCLR,
# solo-learn and lightly, this project; the last for state dicts of the network alone.
PREFIXES = (
    "module.encoder_q.", "encoder_q.", "module.base_encoder.", "base_encoder.", "module.online_encoder.",
    "online_encoder.", "method.backbone.", "module.backbone.", "backbone.", "module.encoder.", "encoder.",
    "module.", "",
)  # fmt: skip
FIRST = ("conv1.weight", "patch_embed.proj.weight")  # of a ResNet, of a ViT
HOLDERS = ("backbone", "state_dict", "model", "student", "teacher", "net", "state", "learner")
HEADS = ("fc.", "head.", "classifier.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The backbone's parameters and statistics in a `.safetensors` file or a checkpoint that torch.save wrote.

    A checkpoint is loaded with `weights_only=True`: a file from elsewhere can run no code. Of several encoders in it,
    the trained one is taken, not its moving average. Names come without prefix and without a classifier.
    Raises UsageError where there is no such file or no backbone in it, RunError for a damaged one.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file; weights are a .safetensors file or a checkpoint of torch.save")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        said = str(error).split(". In PyTorch 2.6")[0]  # what follows would have people run code from elsewhere
        reason = " ".join(said.split())[:300]
        raise RunError(
            f"{path} cannot be read as weights ({type(error).__name__}: {reason}): pass a .safetensors file, or a "
            f"checkpoint of torch.save with tensors and plain values alone"
        ) from None
    state = _tensors(content)
    for prefix in PREFIXES:
        if any(prefix + first in state for first in FIRST):
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            return {name: value for name, value in own.items() if not name.startswith(HEADS)}
    some = ", ".join(sorted(state)[:4]) or "no tensors at all"
    raise UsageError(f"{path} holds no ResNet or ViT under a known prefix; it begins with {some}")


def _tensors(content: Any) -> dict[str, Tensor]:
    """The innermost dictionary of tensors under a known name."""
    if not isinstance(content, dict):
        return {}
    if any(isinstance(value, Tensor) and name.count(".") for name, value in content.items()):
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for holder in HOLDERS:
        found = _tensors(content.get(holder))
        if found:
            return found
    return {}


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Loads `read_weights(path)` into a backbone; RunError that names the first misfit, and changes nothing then."""
    state, own = read_weights(path), backbone.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in own]
    other = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or extra or other:
        what = (
            f"{other[0]} is {list(state[other[0]].shape)} there and {list(own[other[0]].shape)} here"
            if other
            else f"it lacks {missing[0]}"
            if missing
            else f"it also has {extra[0]}"
        )
        raise RunError(f"{path} does not fit this backbone: {what}; choose --backbone.name, .width and .stem to match")
    backbone.load_state_dict(state, strict=False)
