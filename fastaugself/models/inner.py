"""Features of inner layers: stages of this project's ResNets, and blocks or stages of timm's models.

`layer1` to `layer4` are the stages of a ResNet; `block1`, ... the blocks of a ViT of timm; `stage1`, ... what other
models of timm return from `forward_intermediates`. Tokens are normalised over their channels, as a ViT's last norm does
(without its weights), and class and register tokens are left out.

Shape suffixes: B batch, C channels, H W.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .resnet import ResNet

_MAPS: dict[str, Any] = {"norm": False, "output_fmt": "NCHW"}  # of timm's forward_intermediates


class InnerFeatures:
    """Feature maps of the global views at `layers`, collected during one forward pass of a method.

    layers: names, see `layer_widths`. maps: by view (0 or 1) and layer, [B, C, H, W].
    """

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.layers = layers
        self.maps: dict[int, dict[str, Tensor]] = {}


def layer_widths(backbone: nn.Module) -> dict[str, int]:
    """Number of channels of every inner layer, by name; empty if the backbone cannot return them."""
    if isinstance(backbone, ResNet):
        return backbone.layer_widths()
    if not hasattr(backbone, "forward_intermediates"):
        return {}
    kind = _kind(backbone)
    infos: Any = getattr(backbone, "feature_info", ())
    return {f"{kind}{i + 1}": int(info["num_chs"]) for i, info in enumerate(infos)}


def patch_size(backbone: Any, block: str) -> int:
    """Pixels per side of the patches whose tokens are in the map of a block; 0 if the backbone has no such block."""
    is_block = block in layer_widths(backbone) and block.startswith("block")
    return int(backbone.feature_info[int(block[5:]) - 1]["reduction"]) if is_block else 0


def check_layers(backbone: nn.Module, layers: tuple[str, ...], option: str, without: str) -> None:
    """Raises UsageError if the backbone lacks one of the layers.

    option: that named them, as on the command line. without: options with which no layer is needed.
    """
    known = layer_widths(backbone)
    for layer in layers:
        if layer not in known:
            names = f"its layers are {', '.join(known)}" if known else "it does not return features of inner layers"
            instead = f"{option} {list(known)[-2 if len(known) > 1 else -1]}, or " if known else ""
            raise UsageError(f"{option} {layer}: the backbone has no such layer, {names}; pass {instead}{without}")


def forward_inner(backbone: Any, x_BCHW: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Pooled features [B, D] as from `backbone(x_BCHW)`, and the feature maps [B, C, H, W] of inner layers by name."""
    if not layers:
        return backbone(x_BCHW), {}
    if isinstance(backbone, ResNet):
        return backbone.forward_layers(x_BCHW, layers)
    # The final features are those of the last block; norm=False because the last norm belongs to these only.
    # stop_early=False because Hiera would leave out the blocks after the last layer asked for.
    final, maps = backbone.forward_intermediates(x_BCHW, indices=_indices(backbone, layers), stop_early=False, **_MAPS)
    return backbone.forward_head(final), _by_name(backbone, layers, maps)


def inner_map(backbone: Any, x_BCHW: Tensor, layer: str) -> Tensor:
    """The feature map [B, C, H, W] of one inner layer, as from `forward_inner`, without the layers above in timm."""
    if isinstance(backbone, ResNet):
        return forward_inner(backbone, x_BCHW, (layer,))[1][layer]
    indices = _indices(backbone, (layer,))
    maps = backbone.forward_intermediates(x_BCHW, indices=indices, stop_early=True, intermediates_only=True, **_MAPS)
    return _by_name(backbone, (layer,), maps)[layer]


def pooled(map_BCHW: Tensor) -> Tensor:
    """The mean over positions, [B, C]."""
    return map_BCHW.mean((2, 3))


def _kind(backbone: Any) -> str:
    """How the layers of a timm model are named: by block if each has a map of patch tokens, or else by stage."""
    if not (hasattr(backbone, "blocks") and hasattr(backbone, "patch_embed")):
        return "stage"
    return "block" if len(backbone.blocks) == len(getattr(backbone, "feature_info", ())) else "stage"


def _indices(backbone: nn.Module, layers: tuple[str, ...]) -> list[int]:
    return sorted({int(layer.removeprefix(_kind(backbone))) - 1 for layer in layers})


def _by_name(backbone: nn.Module, layers: tuple[str, ...], maps: list[Tensor]) -> dict[str, Tensor]:
    """The maps of `_indices`, by layer."""
    kind, found = _kind(backbone), dict(zip(_indices(backbone, layers), maps, strict=True))
    inner = {layer: found[int(layer.removeprefix(kind)) - 1] for layer in layers}
    return {layer: _normalized(x_BCHW) for layer, x_BCHW in inner.items()} if kind == "block" else inner


def _normalized(map_BCHW: Tensor) -> Tensor:
    tokens = map_BCHW.movedim(1, -1)
    return F.layer_norm(tokens, tokens.shape[-1:]).movedim(-1, 1)
