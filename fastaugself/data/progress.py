"""Progress of a long job over photos: a bar in a terminal, otherwise a line in the log every 30 seconds."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

log = logging.getLogger(__name__)

_LINE_EVERY = 30.0  # seconds


@contextmanager
def progress(what: str, total: int, *, wanted: bool, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows the number of finished photos, the rate and the time left; yields a function that advances the count.

    what: name of the job, such as "writing". total: number of photos. wanted: False shows nothing. done: photos that an
    earlier run has finished.
    """
    console = Console(stderr=True)
    if wanted and not console.is_terminal:
        yield _lines(what, total, done)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not wanted, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _lines(what: str, total: int, done: int) -> Callable[[int], None]:
    began = last = time.monotonic()
    now_done = done

    def advance(count: int) -> None:
        nonlocal last, now_done
        now_done += count
        now = time.monotonic()
        if now - last < _LINE_EVERY:
            return
        last, rate = now, (now_done - done) / (now - began)
        left = (total - now_done) / rate / 60 if rate else 0.0
        log.info("%s: %d of %d photos, %.0f photos/s, %.1f minutes left", what, now_done, total, rate, left)

    return advance


class _Rate(ProgressColumn):
    """Photos per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} photos/s" if task.speed else "", style="progress.data.speed")
