"""Logging of a run: console, train.log, metrics.jsonl, evaluations.jsonl, TensorBoard and trackers."""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import replace_file
from .console import console_fault
from .progress import Bar, console, make_bar

log = logging.getLogger("fastaugself")


class RunLog:
    """The log of one run; only rank 0 writes."""

    def __init__(
        self, folder: Path, *, is_main: bool, tensorboard: bool, global_step: int, total: int, tracker: Any = None
    ) -> None:
        """global_step, total: current and last step, for the progress bar. tracker: a `tracker.Tracker`, or None."""
        self.is_main, self._tracker = is_main, tracker
        self._metrics = folder / "metrics.jsonl"
        self._board: Any = None
        self._bar: Bar | None = None
        self._warned = False
        if not is_main:
            return
        _truncate_after(self._metrics, global_step)
        _truncate_after(folder / "evaluations.jsonl", global_step)
        self._evaluations = folder / "evaluations.jsonl"
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=global_step + 1)
            except ImportError:
                log.info("tensorboard is not installed; metrics go to %s (pip install tensorboard)", self._metrics)
            except UnicodeEncodeError:
                log.warning("tensorboard needs folder names in UTF-8; metrics go to %s alone", self._metrics)
        self._bar = make_bar(global_step, total)

    def progress(self, global_step: int, status: str | None = None) -> None:
        """Updates the progress bar."""
        if self._bar is not None:
            self._bar.update(global_step, status)

    def metrics(self, record: dict[str, float], line: str) -> None:
        """Writes the metrics of a log line to all destinations. line: the text for console and train.log."""
        if not self.is_main:
            return
        self._append(self._metrics, record)
        if self._board is not None:
            for name, value in record.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, int(record["step"]))
        if self._tracker is not None:
            self._tracker.log(record, int(record["step"]))
        if self._bar is None:
            log.info("%s", line)
        else:
            logging.getLogger("fastaugself.file").info("%s", line)

    def evaluation(self, record: dict[str, Any], line: str) -> None:
        """Writes the result of an online evaluation to all destinations."""
        self._append(self._evaluations, record)
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar("evaluation/" + name, value, int(record["step"]))
        if self._tracker is not None:
            self._tracker.log({"evaluation/" + k: v for k, v in record.items() if k != "step"}, int(record["step"]))
        log.info("%s", line)

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        """Appends a line of JSON; a write error is logged once and does not stop the run."""
        try:
            with open(path, "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s); training continues", path, error)
            self._warned = True

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()
        if self._tracker is not None:
            self._tracker.finish()


def _truncate_after(path: Path, step: int) -> None:
    """Drops lines of steps after `step`, which a resumed run writes again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # a line that was cut when the process was killed
    replace_file(path, "".join(kept).encode())


def start_logging(folder: Path | None, *, is_main: bool) -> None:
    """Logs to the console and, with timestamps, to `folder`/train.log (None: console only). Only rank 0 logs info."""
    root = logging.getLogger("fastaugself")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.propagate = False
    root.setLevel(logging.INFO if is_main else logging.ERROR)
    printed = _ConsoleHandler()
    printed.addFilter(lambda record: record.name != "fastaugself.file")
    root.addHandler(printed)
    if is_main and folder is not None:
        file = _FileHandler(folder / "train.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root.addHandler(file)


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    """Context manager in which `start_logging` may be called, after which the caller's logging is as it was."""
    root = logging.getLogger("fastaugself")
    before = root.handlers, root.propagate, root.level
    root.handlers = []  # start_logging closes those that it finds
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers, root.propagate = before[:2]
        root.setLevel(before[2])


class _ConsoleHandler(logging.Handler):
    """Prints log lines above a live progress bar."""

    _told = False

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(prefix + self.format(record), markup=False)
        if not self._told and (fault := console_fault()):
            self._told = True
            logging.getLogger("fastaugself.file").warning(
                "the console cannot be written (%s); this goes on without it", fault.strerror
            )


class _FileHandler(logging.FileHandler):
    """Writes train.log; the first error is logged to the console, and does not end the run."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            _ConsoleHandler().emit(
                logging.makeLogRecord(
                    {
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": f"{self.baseFilename} cannot be written ({sys.exc_info()[1]}); this goes on without it",
                    }
                )
            )

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of lines that could not be written
            super().close()
