"""Reopen a run folder: a trainer with the newest checkpoint loaded, for inspection."""

from pathlib import Path
from typing import Any

import torch

from ..config.serialize import to_dict
from ..distributed import World
from ..runs.folder import CONFIG, configuration, read_config
from ..training.prepare import prepare_data
from ..training.trainer import Trainer


def reopen(run: Path, **changes: Any) -> Trainer:
    """A single-process trainer of the run, on CUDA if available; the caller closes it.

    changes: top-level options to override, of those that may change when a run resumes.
    Raises UsageError for a path that is not a run folder, or one written by another version.
    """
    config = configuration(read_config(run) | {"run": str(run)} | changes, run / CONFIG)
    world = World.single("cuda:0" if torch.cuda.is_available() and config.device != "cpu" else "cpu")
    return Trainer(prepare_data(config, world), world, identity=to_dict(config))
