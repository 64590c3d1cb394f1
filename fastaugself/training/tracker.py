"""Metrics for Weights & Biases or Trackio: the same calls of two packages, loaded only where one is asked for."""

import hashlib
import importlib
import logging
from typing import Any

from ..config.schema import Pretrain
from ..errors import UsageError

log = logging.getLogger(__name__)


class Tracker:
    """A run of the service; a service that fails costs its lines, never the training."""

    def __init__(self, run: Any) -> None:
        self._run, self._complained = run, False

    def log(self, record: dict[str, Any], step: int) -> None:
        """Sends one line of metrics."""
        self._try(lambda: self._run.log(record, step=step))

    def finish(self) -> None:
        """Ends the run there."""
        self._try(self._run.finish)

    def _try(self, send: Any) -> None:
        try:
            send()
        except Exception as error:
            if not self._complained:
                log.warning("the tracker failed (%s: %s); training continues", type(error).__name__, error)
            self._complained = True


def make_tracker(config: Pretrain, identity: dict[str, Any]) -> Tracker | None:
    """The tracker that --log.tracker asks for. identity: the configuration that it shows.

    Raises UsageError where its package is not installed.
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
        # One run there for one run folder, also after a resume.
        identifier = hashlib.sha256(str(config.run.absolute()).encode()).hexdigest()[:16]
        options |= {"dir": str(config.run), "id": identifier, "resume": "allow"}
    else:
        options |= {"resume": "allow"}
    return Tracker(package.init(**options))
