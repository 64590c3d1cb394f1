"""Reads the scores that the evaluations of a study wrote to its folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from fastaugself.errors import RunError
from plan import Task


def read_value(folder: Path, where: Sequence[str], models: int = 1) -> float:
    """The value under the keys `where` in the row of `models` models; RunError if `folder` holds no such result."""
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
    """Folder of the result of `model` in `task`."""
    return run / "results" / model / f"{task.command[0]}-{task.data}"
