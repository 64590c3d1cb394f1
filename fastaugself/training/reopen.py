"""A run folder back to a trainer with its newest checkpoint, to look at it."""

from pathlib import Path
from typing import Any

import torch

from ..config import Pretrain, from_dict, to_dict
from ..errors import UsageError
from .distributed import World
from .report_records import read_object
from .trainer import Trainer


def read_config(run: Path) -> dict[str, Any]:
    """The values of a run's config.json. Raises UsageError for a folder that is none of a run."""
    values = read_object(run / "config.json")
    if not values:
        raise UsageError(f"{run} is not a run folder: it has no config.json that can be read")
    return values


def reopen(run: Path, **changes: Any) -> Trainer:
    """The run's trainer as one process, on CUDA where there is one; whoever calls closes it.

    changes: top-level options with other values, of those in which a run may differ from its resumption.
    Raises UsageError for a folder that is none of a run, or of another version.
    """
    from ..pretrain import prepare_data

    try:
        config = from_dict(Pretrain, read_config(run) | {"run": str(run)} | changes)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the config.json of {run} does not fit this version ({error})") from None
    cuda = torch.cuda.is_available() and config.device != "cpu"
    world = World(0, 1, torch.device("cuda", 0) if cuda else torch.device("cpu"))
    return Trainer(prepare_data(config, world), world, identity=to_dict(config))
