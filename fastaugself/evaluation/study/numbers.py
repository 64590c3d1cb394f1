"""The numbers that the steps of a study leave in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...errors import RunError
from .plan import Task


def read_value(folder: Path, where: Sequence[str], models: int = 1) -> float:
    """The number of a result: at `where` of the row that has `models` models."""
    try:
        (path,) = folder.glob("*.json")
        rows = [row for row in json.loads(path.read_text())["rows"] if len(row["models"]) == models]
        found = rows[0]
        for key in where:
            found = found[key]
        return float(found)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise RunError(f"{folder} holds no result ({type(error).__name__}: {error}); remove it and run again") from None


def task_folder(run: Path, model: str, task: Task) -> Path:
    """Where the result of a model in a task stands."""
    return run / "results" / model / f"{task.command[0]}-{task.data}"
