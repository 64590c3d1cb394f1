"""Opens a run: its configuration, and the learner or backbone in its newest readable checkpoint."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..errors import RunError, UsageError
from ..models.build import build_backbone
from .build import build_learner
from .checkpoint import newest_readable
from .folder import read_pretrain

log = logging.getLogger("fastaugself")

_BACKBONE = "method.backbone."  # prefix of the backbone's parameters in a learner's state dict
_CLASSIFIER = "method.classifier.weight"


class SavedLearner(NamedTuple):
    """A learner with the weights of a checkpoint, on the CPU.

    step: optimizer steps that were done. samples: photos that it was trained on, 0 if unknown.
    """

    config: Pretrain
    learner: Learner
    step: int
    samples: int


class SavedBackbone(NamedTuple):
    """A backbone with the weights of a checkpoint, on the CPU; fields as in `SavedLearner`."""

    config: Pretrain
    backbone: nn.Module
    step: int
    samples: int


def load_learner(run: Path) -> SavedLearner:
    """The learner (method and auxiliary heads) of a run's newest readable checkpoint.

    A damaged checkpoint is skipped with a logged warning, as when a run is resumed. Raises UsageError for a path that
    is no run folder and for a run without a checkpoint, RunError if no checkpoint can be read or the weights do not
    fit the configuration.
    """
    config = read_pretrain(run)
    path, content = _newest(run)
    state = content["state"]["learner"]
    num_classes = len(state[_CLASSIFIER]) if _CLASSIFIER in state else 0
    learner = build_learner(config, num_classes=num_classes)
    load_state(learner, state, path)
    return SavedLearner(config, learner, content["step"], content["state"].get("samples", 0))


def load_backbone(run: Path, *, image_size: int | None = None) -> SavedBackbone:
    """The backbone of a run's newest readable checkpoint, without the method's heads; raises as `load_learner`.

    image_size: side of the images in pixels, for timm models built for one size; default the size of the run's views.
    """
    config = read_pretrain(run)
    path, content = _newest(run)
    learner = content["state"]["learner"]
    state = {name.removeprefix(_BACKBONE): value for name, value in learner.items() if name.startswith(_BACKBONE)}
    backbone, _ = build_backbone(config.backbone, image_size=image_size or config.view.size)
    load_state(backbone, state, path)
    return SavedBackbone(config, backbone, content["step"], content["state"].get("samples", 0))


def load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """`module.load_state_dict(state)`; RunError with the first mismatch. path: where the state was read from."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        why = lines[min(1, len(lines) - 1)].strip()
        raise RunError(
            f"{path} does not fit the model that its config.json describes: {why.rstrip('.')}; copy both again, from "
            "one export or run"
        ) from None


def _newest(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest readable checkpoint of a run and its content, on the CPU."""
    folder = run / "checkpoints"
    try:
        found = newest_readable(folder)
    except RunError as error:
        raise RunError(f"{error}; copy the run again, or train it again") from None
    if found is None:
        raise UsageError(f"{folder} holds no checkpoint yet: train it first")
    for warning in found.warnings():
        log.warning("%s", warning)
    return found.path, found.content
