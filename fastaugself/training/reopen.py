"""A run folder back to a trainer with its newest checkpoint, to look at it."""

from pathlib import Path
from typing import Any

import torch

from ..config import to_dict
from ..run_folder import CONFIG, configuration, read_config
from .distributed import World
from .trainer import Trainer


def reopen(run: Path, **changes: Any) -> Trainer:
    """The run's trainer as one process, on CUDA where there is one; whoever calls closes it.

    changes: top-level options with other values, of those in which a run may differ from its resumption.
    Raises UsageError for a folder that is none of a run, or of another version.
    """
    from ..pretrain import prepare_data

    config = configuration(read_config(run) | {"run": str(run)} | changes, run / CONFIG)
    cuda = torch.cuda.is_available() and config.device != "cpu"
    world = World(0, 1, torch.device("cuda", 0) if cuda else torch.device("cpu"))
    return Trainer(prepare_data(config, world), world, identity=to_dict(config))
