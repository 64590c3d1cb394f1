"""Invariance layer by layer: similarity of the activations of an image and its augmented version.

The analysis of CASSLE (Przewiezlikowski 2024, arXiv 2306.06082): cosine similarity of the flattened activations, cosine
similarity of different images (the batch in reverse) for comparison, and the InfoNCE loss within the batch at a
temperature of 0.2. A conditioned projector gets each view's own augmentation parameters.

Shape suffixes: V views, B batch, C channels, H W, D flattened activations.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy, descriptors

from ..errors import UsageError
from ..runs.checkpoint import checkpoints
from ..runs.open import load_learner
from .encoder import Encoder
from .splits import Split
from .views import Batch, view_batches

RESNET = ("conv1", "layer1", "layer2", "layer3", "layer4")
TEMPERATURE = 0.2
Projector = Callable[[Tensor, Batch, int], Tensor]


def policies(size: int) -> dict[str, ViewPolicy]:
    """Policies that always apply one augmentation and no other, by name. size: side of the views in pixels."""
    none = ViewPolicy.none(size)
    return {
        "flip": replace(none, flip=1.0),
        "color": replace(none, jitter=1.0),
        "grayscale": replace(none, gray=1.0),
        "blur": replace(none, blur=1.0),
        "crop": replace(none, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
    }


@torch.inference_mode()
def measure(
    encoder: Encoder,
    split: Split,
    *,
    seed: int,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
    names: Sequence[str] = (),
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Similarities per image: [augmentation][layer]["same" | "other" | "infonce"], each float64 [N].

    same: cosine similarity of an image and its augmented version. other: of the image and another augmented image.
    infonce: loss in nats as in CASSLE's code, the mean cross-entropy of both directions times 2 * TEMPERATURE; chance
    is 2 * TEMPERATURE * log(batch_size). seed: of the augmentations. device: where the encoder runs.
    workers: decoding threads, 0 = one per core. names: augmentations to measure, default all.
    A last batch of one image is left out.
    Raises UsageError for an unknown augmentation.
    """
    known = policies(encoder.size)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"unknown augmentation {unknown[0]}; pass one of {', '.join(known)}")
    module = encoder.module.to(device)
    project = load_projector(encoder, device)
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for name in names or known:
        pair = (ViewPolicy.none(encoder.size), known[name])
        parts: dict[str, list[Tensor]] = {}
        for batch in view_batches(
            split, encoder, pair, seed=seed, batch_size=batch_size, device=device, workers=workers
        ):
            if len(batch.sizes_B2) < 2:
                continue
            clean, changed = (_activations(module, batch, v, project) for v in (0, 1))
            for layer in clean:
                parts.setdefault(layer, []).append(compare_features(clean[layer], changed[layer]).cpu())
        columns = {layer: torch.cat(values, 1).double() for layer, values in parts.items()}
        found[name] = {
            layer: dict(zip(("same", "other", "infonce"), value, strict=True)) for layer, value in columns.items()
        }
    encoder.module.to("cpu")
    return found


def _activations(module: nn.Module, batch: Batch, view: int, project: Projector | None) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {"input": batch.x_VBCHW[view].flatten(1)}
    hooks = []
    for name, child in stages(module):

        def keep(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            if isinstance(output, Tensor) and len(output) == len(batch.sizes_B2):
                kept[name] = output.flatten(1).float()

        hooks.append(child.register_forward_hook(keep))
    try:
        f_BD = module(batch.x_VBCHW[view])
    finally:
        for hook in hooks:
            hook.remove()
    kept["features"] = f_BD.flatten(1).float()
    if project is not None:
        kept["projector"] = project(f_BD, batch, view).float()
    return kept


def stages(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The stages of a network by name, in their order: those of a ResNet, or its children and their blocks."""
    children = dict(module.named_children())
    if all(name in children for name in RESNET):
        return [(name, children[name]) for name in RESNET]
    found = []
    for name, child in children.items():  # each block of a Sequential or ModuleList is a stage
        inner = list(child.named_children()) if isinstance(child, nn.Sequential | nn.ModuleList) else []
        found += [(f"{name}.{part}", block) for part, block in inner] or [(name, child)]
    return found


def compare_features(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """(same, other, infonce) of each row, [3, B], as in `measure`."""
    a_BD, b_BD = F.normalize(a_BD, dim=1), F.normalize(b_BD, dim=1)
    scores_BB = a_BD @ b_BD.T
    target = torch.arange(len(a_BD), device=a_BD.device)
    nce = [F.cross_entropy(s / TEMPERATURE, target, reduction="none") for s in (scores_BB, scores_BB.T)]
    other_B = (a_BD * b_BD.flip(0)).sum(1)
    return torch.stack([scores_BB.diagonal(), other_B, 2 * TEMPERATURE * (nce[0] + nce[1]) / 2])


def load_projector(encoder: Encoder, device: torch.device) -> Projector | None:
    """The projector of a run's newest readable checkpoint; None for an encoder without run or projector."""
    run = Path(encoder.source)
    if not (run / "config.json").exists() or not checkpoints(run / "checkpoints"):
        return None
    config, learner, *_ = load_learner(run)
    projector = getattr(learner.method, "projector", None)
    if not isinstance(projector, nn.Module):
        return None
    projector.requires_grad_(False).eval().to(device)

    def project(f_BD: Tensor, batch: Batch, view: int) -> Tensor:
        if not config.cassle.condition_dim:
            return projector(f_BD)
        policy = (config.view,) * len(batch.params_VBP)
        condition_VBn = descriptors(
            batch.params_VBP, batch.sizes_B2, policy, batch.shift_VB3, include=config.cassle.include
        )
        return projector(f_BD, condition_VBn[view].to(device))

    return project
