"""A run folder back to a trainer with its newest checkpoint, to look at it."""

from pathlib import Path
from typing import Any

import torch

from ..config.serialize import to_dict
from ..distributed import World
from ..runs.folder import CONFIG, configuration, read_config
from ..training.prepare import prepare_data
from ..training.trainer import Trainer


def reopen(run: Path, **changes: Any) -> Trainer:
    """The run's trainer as one process, on CUDA where there is one; whoever calls closes it.

    changes: top-level options with other values, of those in which a run may differ from its resumption.
    Raises UsageError for a folder that is none of a run, or of another version.
    """
    config = configuration(read_config(run) | {"run": str(run)} | changes, run / CONFIG)
    world = World.single("cuda:0" if torch.cuda.is_available() and config.device != "cpu" else "cpu")
    return Trainer(prepare_data(config, world), world, identity=to_dict(config))
