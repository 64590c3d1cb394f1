"""Sends metrics to Weights & Biases or Trackio, which are imported only if `--log.tracker` names them."""

import hashlib
import importlib
import logging
from typing import Any

from ..config.schema import Pretrain
from ..errors import UsageError
from ..files import utf8

log = logging.getLogger(__name__)


class Tracker:
    """A run of the tracking service; errors of the service are logged once and do not stop training."""

    def __init__(self, run: Any) -> None:
        self._run, self._warned = run, False

    def log(self, record: dict[str, Any], step: int) -> None:
        """Sends one line of metrics."""
        self._try(lambda: self._run.log(record, step=step))

    def finish(self) -> None:
        """Marks the run as finished."""
        self._try(self._run.finish)

    def _try(self, send: Any) -> None:
        try:
            send()
        except Exception as error:
            if not self._warned:
                log.warning("the tracker failed (%s: %s); training continues", type(error).__name__, error)
            self._warned = True


def make_tracker(config: Pretrain, identity: dict[str, Any]) -> Tracker | None:
    """The tracker of `--log.tracker`, or None. identity: the configuration to show.

    Raises UsageError if its package is not installed.
    """
    name = config.log.tracker
    if name == "none":
        return None
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"--log.tracker {name}: {name} is not installed ({error}); pip install {name}") from None
    options: dict[str, Any] = {"project": config.log.project, "name": config.run.name, "config": identity}
    if name == "wandb":
        # One run of the service per run folder, also after resuming.
        identifier = hashlib.sha256(utf8(str(config.run.absolute()))).hexdigest()[:16]
        options |= {"dir": str(config.run), "id": identifier, "resume": "allow"}
    else:
        options |= {"resume": "allow"}
    return Tracker(package.init(**options))
