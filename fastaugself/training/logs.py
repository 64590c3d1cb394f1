"""Where a run's progress goes: the console, train.log, metrics.jsonl, TensorBoard."""

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ..files import replace_file

log = logging.getLogger("fastaugself")
console = Console(stderr=True, highlight=False, soft_wrap=True)  # shared, so that lines go above the progress bar


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as people write them."""
    if not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h} h {m:02d} min" if h else f"{m} min {s:02d} s" if m else f"{s} s"


class RunLog:
    """The log of one run; on processes that do not lead, a log that writes nothing."""

    def __init__(
        self, folder: Path, *, leads: bool, tensorboard: bool, step: int, total: int, tracker: Any = None
    ) -> None:
        """tracker: something with `log(record, step)` and `finish()` (tracker.py), or None."""
        self.leads, self._tracker = leads, tracker
        self._metrics = folder / "metrics.jsonl"
        self._board: Any = None
        self._bar: Progress | None = None
        self._complained = False
        if not leads:
            return
        _keep_until(self._metrics, step)
        _keep_until(folder / "evaluations.jsonl", step)
        self._evaluations = folder / "evaluations.jsonl"
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
            except ImportError:
                log.info("tensorboard is not installed; metrics go to %s (pip install tensorboard)", self._metrics)
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), _Status())
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task("training", total=total, completed=step, status="starting")

    def step(self, step: int, status: str | None = None) -> None:
        """Moves the progress bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
            if status is not None:
                self._bar.update(self._task, status=status)

    def metrics(self, record: dict[str, float], line: str) -> None:
        """Writes one line of metrics everywhere."""
        if not self.leads:
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
                log.warning("%s cannot be written (%s); training goes on", path, error)
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


def start_logging(folder: Path | None, *, leads: bool) -> None:
    """Sends log lines to the console and, where there is a folder, with the time to its train.log."""
    root = logging.getLogger("fastaugself")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.propagate = False
    root.setLevel(logging.INFO if leads else logging.ERROR)
    printed = _ConsoleHandler()
    printed.addFilter(lambda record: record.name != "fastaugself.file")
    root.addHandler(printed)
    if leads and folder is not None:
        file = logging.FileHandler(folder / "train.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root.addHandler(file)


class _ConsoleHandler(logging.Handler):
    """Prints above a live progress bar, plainly elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(prefix + self.format(record), markup=False)


class Rate:
    """Samples per second and the time left, measured since the last reading."""

    def __init__(self, samples_per_step: int) -> None:
        self._per_step = samples_per_step
        self._since = time.perf_counter()
        self._steps = 0
        self.waited = 0.0

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not spent on training: checks, checkpoints."""
        self._since += seconds

    def count(self, waited: float) -> None:
        """One step is done; `waited` seconds of it went by waiting for data."""
        self._steps += 1
        self.waited += waited

    def read(self) -> tuple[float, float]:
        """(pairs per second, share of the time spent waiting for data) since the last reading."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        rate, share = self._steps * self._per_step / seconds, self.waited / seconds
        self._since, self._steps, self.waited = time.perf_counter(), 0, 0.0
        return rate, share
