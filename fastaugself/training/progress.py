"""The progress of a run: a bar in a terminal, a line that is rewritten in a notebook."""

import sys
import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


class Bar(Protocol):
    """Shows the step and the status line of a run."""

    def update(self, step: int, status: str | None) -> None:
        """Shows the number of finished steps. status: None keeps the one before."""

    def stop(self) -> None:
        """Shows the last state and ends."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


# Shared, so that log lines are printed above the progress bar. A notebook shows standard error as if it were an error.
console = Console(stderr=not in_notebook(), highlight=False, soft_wrap=True, force_jupyter=False)


def make_bar(step: int, total: int) -> Bar | None:
    """The bar for a run at `step` of `total` steps; None where neither a terminal nor a notebook shows it."""
    if in_notebook():
        return NotebookBar(step, total)
    return TerminalBar(step, total) if sys.stderr.isatty() else None


class TerminalBar:
    """A bar on standard error. step, total: finished steps, and all."""

    def __init__(self, step: int, total: int) -> None:
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), _Status(), console=console)
        self._bar.start()
        self._task = self._bar.add_task("training", total=total, completed=step, status="starting")

    def update(self, step: int, status: str | None) -> None:
        fields: dict[str, Any] = {} if status is None else {"status": status}
        self._bar.update(self._task, completed=step, **fields)

    def stop(self) -> None:
        self._bar.stop()


class NotebookBar:
    """One line below the cell, which needs no widgets. step, total: finished steps, and all."""

    EVERY = 0.2  # seconds

    def __init__(self, step: int, total: int) -> None:
        from IPython.display import display

        self._step, self._total, self._status, self._shown = step, total, "starting", time.monotonic()
        self._handle: Any = display(self._line(), display_id=True)

    def update(self, step: int, status: str | None) -> None:
        self._step, self._status = step, self._status if status is None else status
        if time.monotonic() - self._shown >= self.EVERY:
            self._show()

    def stop(self) -> None:
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._handle.update(self._line())

    def _line(self) -> "_Line":
        return _Line(self._step, self._total, self._status)


class _Line:
    """What a notebook shows: as HTML, or as text where that is not possible."""

    def __init__(self, step: int, total: int, status: str) -> None:
        self._step, self._total, self._status = step, total, status

    def __repr__(self) -> str:
        return f"step {self._step}/{self._total}  {self._status}"

    def _repr_html_(self) -> str:
        import html

        bar = f'<progress value="{self._step}" max="{self._total}"></progress>'
        return f'{bar} <code style="white-space: pre-wrap">{html.escape(repr(self))}</code>'


class _Status(ProgressColumn):
    """The text after the progress bar: the step and the status line."""

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)}  {task.fields.get('status', '')}")
