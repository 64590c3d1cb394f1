"""Loads backbone weights from exports and from checkpoints of this and other libraries (torchvision, timm, MoCo, ...).

Parameter names are those of torchvision's ResNet (timm has the same) or of timm's ViT, below any prefix and in any
dictionary of the file: `{"state_dict": {"module._orig_mod.student.backbone.conv1.weight": ...}}`.
"""

import argparse
import json
import pathlib
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..errors import RunError, UsageError

FIRST_LAYERS = ("conv1.weight", "patch_embed.proj.weight")  # of a ResNet and of a ViT
CLASSIFIERS = ("fc.", "head.", "classifier.")
# Words of names and keys that belong to an EMA copy, or to MoCo's key encoder, such as `teacher`, `model_ema`,
# `momentum_encoder` and `encoder_k`: of two encoders with equally many parameters the other one was trained.
_COPY = re.compile(r"(^|_)(ema|momentum|teacher|target|key|k|averaged|swa)(_|$)")
# Other words of prefixes; of equal candidates, the one with the fewest further words counts.
_USUAL = {
    "module", "_orig_mod", "model", "backbone", "encoder", "state_dict", "model_state_dict", "student", "net",
    "network", "learner", "method", "state", "encoder_q", "base_encoder", "online_encoder",
}  # fmt: skip
_DEPTH = 8  # of nested dictionaries
# Plain values that stand beside weights. None of them runs code when it is read.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN: list[Any] = [
    argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, np.dtype, _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"), *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
]  # fmt: skip


def read_weights(path: Path, names: Collection[str] = FIRST_LAYERS) -> dict[str, Tensor]:
    """Reads the state dict of a backbone from a `.safetensors` file or a torch.save checkpoint.

    Checkpoints are loaded with `weights_only=True`, so that untrusted files cannot run code. If a checkpoint holds
    several encoders, the trained one is returned, not its EMA copy. Names have no prefix; a classifier is left out.
    names: parameters that identify the backbone, by default the first layer of a ResNet or ViT; of all prefixes, the
    one with most of them is used.
    Raises UsageError if the file is missing or holds no backbone, RunError if it is damaged or holds objects.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; pass a .safetensors file or a torch.save checkpoint")
    states = list(_states(_read(path)))
    found = [place for state in states for place in _places(state, names)]
    if not found:
        kind = "ResNet or ViT" if names is FIRST_LAYERS else "weights of this model"
        some = ", ".join(sorted(".".join((*s.keys, name)) for s in states for name in s.tensors)[:4]) or "no tensors"
        raise UsageError(f"{path} holds no {kind}; its first names are {some}")
    place = min(found, key=_Place.rank)
    tensors = place.state.tensors.items()
    encoder = {name.removeprefix(place.prefix): value for name, value in tensors if name.startswith(place.prefix)}
    return {name: value for name, value in encoder.items() if name in names or not name.startswith(CLASSIFIERS)}


def _read(path: Path) -> Any:
    """The content of a file of weights, without running code."""
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)[0]
        with safe_globals(_PLAIN), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        alone = "save the weights alone there, as with torch.save(model.state_dict(), FILE), and pass that file"
        if classes := _classes_in_the_way(path, error):
            more = f" and {len(classes) - 1} more" if len(classes) > 1 else ""
            raise RunError(
                f"{path} holds objects of {classes[0]}{more}, not only tensors and plain values, and reading them "
                f"could run code: {alone}"
            ) from None
        if "TorchScript" in str(error):
            raise RunError(f"{path} is a TorchScript program, which is not read as weights: {alone}") from None
        # torch's colours, and its advice to read the file with weights_only=False, are left out.
        reason = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).rpartition("WeightsUnpickler error:")[2].split())
        reason = reason.partition(". ")[0][:300]
        raise RunError(
            f"{path} cannot be read as weights ({type(error).__name__}: {reason}): it is damaged, or no .safetensors "
            "file and no torch.save checkpoint; copy it again"
        ) from None


def _classes_in_the_way(path: Path, error: Exception) -> list[str]:
    """The classes and functions, by module and name, that a checkpoint refers to and that are not read."""
    if not isinstance(error, pickle.UnpicklingError):
        return []
    try:
        with safe_globals(_PLAIN):
            found = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # torch's older format
        found = []
    named = re.search(r"GLOBAL ([\w.]*\w)", str(error))
    return sorted(found) or ([named[1]] if named else [])


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a `.safetensors` file.

    The library's own functions for files refuse names that are not UTF-8. Raises SafetensorError if it is damaged.
    """
    from safetensors.torch import load

    data = path.read_bytes()
    tensors = load(data)  # checks the header, too
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return tensors, json.loads(header).get("__metadata__") or {}


class _State(NamedTuple):
    """The tensors of one dictionary of a checkpoint, by name. keys: of the dictionaries around it."""

    keys: tuple[str, ...]
    tensors: dict[str, Tensor]


class _Place(NamedTuple):
    """A prefix in a state dict. hits: number of the wanted names below it."""

    state: _State
    prefix: str
    hits: int

    def rank(self) -> tuple[int, int, int]:
        """Smaller is better: more of the wanted names, then no EMA copy, then usual words only."""
        words = [word for key in self.state.keys for word in key.split(".")] + self.prefix.split(".")[:-1]
        copies = sum(bool(_COPY.search(word)) for word in words)
        return -self.hits, copies, sum(word not in _USUAL for word in words)


def _states(content: Any, keys: tuple[str, ...] = ()) -> Iterator[_State]:
    """All dictionaries with tensors in a checkpoint, at any depth."""
    if not isinstance(content, dict) or len(keys) > _DEPTH:
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield _State(keys, tensors)
    for key, value in content.items():
        yield from _states(value, (*keys, str(key)))


def _places(state: _State, names: Collection[str]) -> list[_Place]:
    """The prefixes below which there is one of `names`, without those inside of another one (`layer1.0.`)."""
    hits: Counter[str] = Counter()
    for full in state.tensors:
        for start in [0, *(match.end() for match in re.finditer(r"\.", full))]:
            if full[start:] in names:
                hits[full[:start]] += 1
    inner = {p for p in hits for other in hits if other != p and p.startswith(other) and hits[other] >= hits[p]}
    return [_Place(state, prefix, count) for prefix, count in hits.items() if prefix not in inner]


def load_weights(backbone: nn.Module, path: Path, *, strict: bool = True) -> None:
    """Loads the weights of `read_weights(path)` into a backbone.

    strict: the backbone is a ResNet or ViT, and the file must hold no other parameters but a classifier. False for any
    other architecture: the file must hold the backbone's parameters; further ones are ignored.
    Raises RunError, with the first mismatch, if names or shapes differ; the backbone is then unchanged.
    """
    expected = backbone.state_dict()
    state = read_weights(path, expected.keys())
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
