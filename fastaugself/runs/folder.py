"""Loads config.json from a run folder, with helpful errors for wrong paths.

Does not import torch, so that a wrong path is refused at once.
"""

import contextlib
import difflib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..files import read_text

if TYPE_CHECKING:
    from ..config.schema import Pretrain

CONFIG = "config.json"
_MAX_ENTRIES = 1000  # of a folder that are searched for runs
_MAX_SUGGESTIONS = 3  # run folders in an error message


def read_config(run: Path) -> dict[str, Any]:
    """The values of a run's config.json. Raises UsageError, with runs nearby, if the path is not a run folder."""
    if not run.is_dir():
        what = "is a file" if run.exists() else "no such folder"
    elif not (run / CONFIG).exists():
        what = f"holds no {CONFIG}"
    else:
        return read_config_file(run / CONFIG)
    raise UsageError(f"{run}: {what}; pass a run folder, which training writes at --run{_nearby(run)}")


def read_config_file(path: Path, option: str = "") -> dict[str, Any]:
    """The values of a config.json, given by its path or its run folder. Raises UsageError if it is not that of a run.

    option: the command-line option that names the file, for the error message.
    """
    file = path / CONFIG if path.is_dir() else path
    what = f"{option} {file}".strip()
    try:
        values = json.loads(read_text(file))
    except FileNotFoundError:
        raise UsageError(f"{what}: no such file; pass the {CONFIG} of a run{_nearby(path)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} cannot be read ({error}); pass the {CONFIG} of a run{_nearby(path)}") from None
    if isinstance(values, dict) and "method" in values and "backbone" in values:
        return values
    export = isinstance(values, dict) and "architecture" in values
    kind = "describes an export, not a run" if export else "is not that of a run"
    raise UsageError(f"{what} {kind}; pass the {CONFIG} of a run{_nearby(path)}")


def read_pretrain(run: Path) -> "Pretrain":
    """The configuration of a run. Raises UsageError like `read_config`, and if another version wrote it."""
    return configuration(read_config(run), run / CONFIG)


def configuration(values: dict[str, Any], path: Path | str) -> "Pretrain":
    """The configuration in the values of a config.json. path: of the file, for error messages.

    Raises UsageError if another version wrote it.
    """
    from ..config.schema import Pretrain
    from ..config.serialize import UnknownMethod, from_dict

    try:
        return from_dict(Pretrain, values)
    except UnknownMethod as error:
        raise UsageError(f"{path}: {error}") from None
    except (TypeError, ValueError, AttributeError, StopIteration) as error:
        raise UsageError(f"{path} does not fit this version ({error}); use the version that wrote it") from None


def _nearby(path: Path) -> str:
    """The end of an error message: run folders near `path`, closest names first."""
    found = {str(run): None for run in _runs_around(path)}
    close = difflib.get_close_matches(str(path), found, n=_MAX_SUGGESTIONS, cutoff=0.0)
    return f", such as {' or '.join(close)}" if close else ""


def _runs_around(path: Path) -> Iterator[Path]:
    yield from (parent for parent in path.parents if _is_run(parent))
    there = next(folder for folder in (path, *path.parents) if os.path.isdir(folder))
    for folder in dict.fromkeys((there, there / "runs", Path("runs"), Path())):
        with contextlib.suppress(OSError):  # missing, or not readable
            yield from (child for child in islice(folder.iterdir(), _MAX_ENTRIES) if _is_run(child))


def _is_run(folder: Path) -> bool:
    return os.path.isfile(folder / CONFIG) and os.path.isdir(folder / "checkpoints")
