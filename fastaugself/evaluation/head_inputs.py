"""What linear heads read of a frozen encoder: pooled features, or tokens of a ViT's last blocks (DINO, DINOv2).

`pooled` is the encoder's output. `cls` is the class token of the last block, `cls4` those of the last four, and
`cls+mean` and `cls4+mean` have the mean of the last block's patch tokens too; all after the ViT's last norm.

Shape suffixes: B batch, C channels, H W, D features.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .encoder import Encoder

_TOKENS = re.compile(r"cls([1-9]\d*)?(\+mean)?")
EXAMPLES = "pooled, cls, cls4, cls+mean, ..."


class HeadInputs(nn.Module):
    """An encoder's features for heads: normalised images [B, 3, H, W] to float32 [B, D].

    names: of the inputs. slices: where the features of each input are in D; inputs may share features.
    Raises UsageError for an unknown input, for tokens of a model without a class token, and for more blocks than it
    has.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, tuple(names)
        wanted = {name: _blocks(name) for name in names}
        self.blocks = max(wanted.values())
        if not self.blocks:
            self.slices = dict.fromkeys(names, slice(0, encoder.num_features))
            return
        if min(wanted.values()) == 0:
            raise UsageError(f"--inputs {' '.join(names)}: heads read either pooled features or tokens: pass one kind")
        backbone: Any = encoder.module
        _check(encoder, names, self.blocks)
        width = int(backbone.num_features)
        end = self.blocks * width
        self.slices = {
            name: slice(end - blocks * width, end + width * name.endswith("+mean")) for name, blocks in wanted.items()
        }

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.blocks:
            return self.encoder(x_BCHW).float()
        backbone: Any = self.encoder.module
        tokens = backbone.forward_intermediates(
            x_BCHW, indices=self.blocks, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
        features = [prefix[:, 0] for _, prefix in tokens]
        if any(name.endswith("+mean") for name in self.names):
            features.append(tokens[-1][0].mean(1))
        return torch.cat(features, 1).float()


def _blocks(name: str) -> int:
    """The number of blocks whose class tokens an input has, 0 for pooled features."""
    if name == "pooled":
        return 0
    found = _TOKENS.fullmatch(name)
    if not found:
        raise UsageError(f"--inputs {name} is unknown: pass {EXAMPLES}")
    return int(found[1] or 1)


def _check(encoder: Encoder, names: Sequence[str], blocks: int) -> None:
    backbone: Any = encoder.module
    has = getattr(backbone, "cls_token", None) is not None and hasattr(backbone, "forward_intermediates")
    if not has:
        raise UsageError(
            f"{encoder.name} has no class token, which the heads of {' and '.join(names)} read: pass --inputs pooled, "
            "a --preset for pooled features (moco, simsiam, moco-v3 or dino), or a ViT of timm"
        )
    if blocks > len(backbone.blocks):
        raise UsageError(
            f"--inputs {' '.join(names)} needs {blocks} blocks, {encoder.name} has {len(backbone.blocks)}: pass "
            f"--inputs cls{len(backbone.blocks)}"
        )
