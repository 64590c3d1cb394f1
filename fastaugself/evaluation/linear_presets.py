"""The published protocols of linear evaluation by SGD, as numbers; docs/evaluation.md has their sources."""

import math
from dataclasses import dataclass
from typing import Literal

from .pixels import Filter

# DINOv2's grid (dinov2/eval/linear.py), at batch size 256.
GRID = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


@dataclass(frozen=True)
class Preset:
    """A protocol.

    epochs: over the training photos. batch_size: photos per optimizer step. optimizer: SGD with momentum 0.9, or LARS
    around it. lr: learning rates at batch size 256, one head each; scaled linearly with the batch size. schedule:
    x0.1 after 60 % and 80 % of the epochs (steps), or half a cosine to 0, by epoch or by step. inputs: of the heads,
    see `head_inputs`. filter: of the resize of test photos.
    """

    epochs: int
    batch_size: int
    lr: tuple[float, ...]
    schedule: Literal["steps", "cosine by epoch", "cosine by step"]
    optimizer: Literal["sgd", "lars"] = "sgd"
    inputs: tuple[str, ...] = ("pooled",)
    filter: Filter = "bilinear"


PRESETS = {
    "moco": Preset(100, 256, (30.0,), "steps"),
    "simsiam": Preset(90, 4096, (0.1,), "cosine by epoch", "lars"),
    "moco-v3": Preset(90, 1024, (0.1,), "cosine by epoch"),
    "moco-v3-vit": Preset(90, 1024, (3.0,), "cosine by epoch", inputs=("cls",)),
    "dino": Preset(100, 1024, GRID, "cosine by epoch", filter="bicubic"),
    "dino-vit-small": Preset(100, 1024, GRID, "cosine by epoch", inputs=("cls4",), filter="bicubic"),
    "dino-vit-base": Preset(100, 1024, GRID, "cosine by epoch", inputs=("cls+mean",), filter="bicubic"),
    "dinov2": Preset(
        10, 1024, GRID, "cosine by step", inputs=("cls", "cls+mean", "cls4", "cls4+mean"), filter="bicubic"
    ),
}
MOMENTUM = 0.9
TRUST = 1e-3  # LARS's trust coefficient, as in SimSiam's code
MILESTONES = (0.6, 0.8)  # of the epochs: 60 and 80 of MoCo's 100


def decay(schedule: str, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """What a learning rate is multiplied by at a step, counted from 0."""
    epoch = step // steps_per_epoch
    if schedule == "steps":
        return float(0.1 ** sum(epoch >= round(part * epochs) for part in MILESTONES))
    progress = epoch / epochs if schedule == "cosine by epoch" else step / (steps_per_epoch * epochs)
    return 0.5 * (1 + math.cos(math.pi * progress))
