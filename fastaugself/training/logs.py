"""Where a run's progress goes: the console, train.log, metrics.jsonl, TensorBoard."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ..files import replace_file

log = logging.getLogger("fastaugself")
console = Console(stderr=True, highlight=False, soft_wrap=True)  # shared, so that lines go above the progress bar


class RunLog:
    """The log of one run; on ranks other than 0 nothing is written."""

    def __init__(
        self, folder: Path, *, is_main: bool, tensorboard: bool, global_step: int, total: int, tracker: Any = None
    ) -> None:
        """tracker: something with `log(record, step)` and `finish()` (tracker.py), or None."""
        self.is_main, self._tracker = is_main, tracker
        self._metrics = folder / "metrics.jsonl"
        self._board: Any = None
        self._bar: Progress | None = None
        self._complained = False
        if not is_main:
            return
        _keep_until(self._metrics, global_step)
        _keep_until(folder / "evaluations.jsonl", global_step)
        self._evaluations = folder / "evaluations.jsonl"
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=global_step + 1)
            except ImportError:
                log.info("tensorboard is not installed; metrics go to %s (pip install tensorboard)", self._metrics)
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), _Status())
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task("training", total=total, completed=global_step, status="starting")

    def progress(self, global_step: int, status: str | None = None) -> None:
        """Updates the progress bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=global_step)
            if status is not None:
                self._bar.update(self._task, status=status)

    def metrics(self, record: dict[str, float], line: str) -> None:
        """Writes one line of metrics everywhere."""
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
        """Writes what a check of the representation found."""
        self._append(self._evaluations, record)
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar("evaluation/" + name, value, int(record["step"]))
        if self._tracker is not None:
            self._tracker.log({"evaluation/" + k: v for k, v in record.items() if k != "step"}, int(record["step"]))
        log.info("%s", line)

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        """A full disk costs lines of the log, not the run."""
        try:
            with open(path, "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            if not self._complained:
                log.warning("%s cannot be written (%s); training continues", path, error)
            self._complained = True

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()
        if self._tracker is not None:
            self._tracker.finish()


class _Status(ProgressColumn):
    """The text after the bar: step of steps, then what the trainer says."""

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)}  {task.fields.get('status', '')}")


def _keep_until(path: Path, step: int) -> None:
    """Drops lines of later steps: a run that was killed repeats them."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # a line cut by the kill
    replace_file(path, "".join(kept).encode())


def start_logging(folder: Path | None, *, is_main: bool) -> None:
    """Sends log lines to the console and, where there is a folder, with the time to its train.log."""
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
        file = logging.FileHandler(folder / "train.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root.addHandler(file)


class _ConsoleHandler(logging.Handler):
    """Prints above a live progress bar, plainly elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(prefix + self.format(record), markup=False)
