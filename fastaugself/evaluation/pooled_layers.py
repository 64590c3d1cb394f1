"""Features of every stage of a network: activations averaged over positions.

Shape suffixes: N images, B batch, C channels, D features.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import RunError
from .encoder import Encoder
from .features import Extractor
from .layers import stages
from .pixels import normalise, prepare
from .prepare import batches
from .splits import Split

FEATURES = "features"  # the name of the network's output


@torch.inference_mode()
def layer_features(extract: Extractor, encoder: Encoder, split: Split, where: str) -> dict[str, Tensor]:
    """Features [N, D] of the images of a split at every stage, and at the output; float32, not cached.

    Maps [B, C, H, W] are averaged over H and W, sequences of tokens [B, T, C] over the tokens. where: name of the
    split, for messages. Raises RunError for NaN or Inf.
    """
    parts: dict[str, list[Tensor]] = {}
    module = encoder.module.to(extract.device)
    for x_BCHW in _inputs(extract, encoder, split):
        kept: dict[str, Tensor] = {}
        hooks = [child.register_forward_hook(partial(_keep, kept, name, len(x_BCHW))) for name, child in stages(module)]
        try:
            kept[FEATURES] = encoder(x_BCHW).float()
        finally:
            for hook in hooks:
                hook.remove()
        for name, x_BD in kept.items():
            parts.setdefault(name, []).append(x_BD.cpu())
    module.to("cpu")
    found = {name: torch.cat(rows) for name, rows in parts.items() if sum(map(len, rows)) == len(split)}
    for name, x_ND in found.items():
        if not bool(torch.isfinite(x_ND).all()):
            raise RunError(f"the activations of {encoder.name} at {name} on {where} contain NaN or Inf")
    return found


def _inputs(extract: Extractor, encoder: Encoder, split: Split) -> Iterator[Tensor]:
    prepared = partial(prepare, size=encoder.size, resize=extract.side(encoder), filter=extract.filter)
    for x_BHWC in batches(split.images, prepared, batch_size=extract.batch_size, workers=extract.workers):
        yield normalise(x_BHWC.to(extract.device), encoder.mean, encoder.std)


def _keep(kept: dict[str, Tensor], name: str, count: int, _module: Any, _inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and len(output) == count and output.ndim >= 2:
        positions = {4: (2, 3), 3: (1,)}.get(output.ndim)
        kept[name] = (output if positions is None else output.float().mean(positions)).flatten(1).float()
