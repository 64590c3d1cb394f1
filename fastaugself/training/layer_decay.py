"""Layer-wise learning-rate decay for fine-tuning: layers near the input move less.

The learning rate of layer l of 0..L is multiplied by decay^(L - l), where the stem is layer 0, each block of a ResNet
or ViT is a layer of its own, and the new classifier is layer L (Clark 2020, arXiv 2003.10555; Bao 2021, BEiT,
2106.08254). The layers are those of timm's `param_groups_layer_decay`.
"""

import re
from types import SimpleNamespace
from typing import Any

from torch import nn

from ..config.optim import Optim
from ..errors import UsageError
from ..models.beside import import_timm

_HEAD = "classifier-on-top.weight"  # a name that belongs to no layer of any model
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")  # of a ResNet


def layers(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """The layer of each parameter of a backbone by its name, and the layer of a classifier on top of it.

    ResNets with this project's or torchvision's names, and all models of timm. Raises UsageError for others.
    """
    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is not None:
        named = [*backbone.named_parameters(), (_HEAD, nn.Parameter())]
        found: dict[str, int] = import_timm().models.group_parameters(
            SimpleNamespace(named_parameters=lambda: named), matcher(coarse=False), reverse=True
        )
        return {name: layer for name, layer in found.items() if name != _HEAD}, found[_HEAD]
    names = [name for name, _ in backbone.named_parameters()]
    blocks = {name: (int(m[1]), int(m[2])) for name in names if (m := _BLOCK.match(name))}
    if not blocks or any(not name.startswith(("conv1.", "bn1.")) for name in names if name not in blocks):
        raise UsageError(
            f"the layers of {type(backbone).__name__} are not known: pass --layer-decay 1, or a ResNet or a model of "
            "timm"
        )
    order = {block: i for i, block in enumerate(sorted(set(blocks.values())), start=1)}
    return {name: order[blocks[name]] if name in blocks else 0 for name in names}, len(order) + 1


def layer_groups(
    backbone: nn.Module, classifier: nn.Module, config: Optim, *, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for `optimizer_of`, whose `scale` decays with the layer; see the top of this file.

    Norms, biases, and what the model names itself (a ViT's class token and position embedding) have no weight decay
    unless `config.decay_norm_bias`. layer_decay: 1 = none.
    """
    where, top = ({}, 0) if layer_decay == 1 else layers(backbone)
    without: Any = getattr(backbone, "no_weight_decay", set)
    exempt = set(without())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    named = [(name, where.get(name, top), name in exempt, p) for name, p in backbone.named_parameters()]
    named += [(name, top, False, p) for name, p in classifier.named_parameters()]
    for _, layer, bare, parameter in named:
        if parameter.requires_grad:
            decays = config.decay_norm_bias or not (parameter.ndim <= 1 or bare)
            groups.setdefault((layer, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "constant": False,
            "scale": layer_decay ** (top - layer),
            "weight_decay": config.weight_decay if decays else 0.0,
            "decays": decays,
            "adapt": decays,
        }
        for (layer, decays), parameters in groups.items()
    ]
