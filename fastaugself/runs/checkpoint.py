"""Checkpoints: atomic writes, and resuming from the newest readable one."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..config.schema import Pretrain
from ..config.serialize import differences, from_dict, to_dict
from ..environment import versions
from ..errors import RunError, UsageError
from ..files import partial_file, remove_leftovers

FORMAT = 1
NUMERICAL_PACKAGES = ("torch", "triton", "numba")  # packages whose version may change results by rounding
_NAME = re.compile(r"step-(\d{9})\.pt")


def save(
    folder: Path, step: int, state: dict[str, Any], config: dict[str, Any], *, keep: int, milestone: int = 0
) -> Path:
    """Writes `folder/step-NNNNNNNNN.pt` atomically, then removes old checkpoints. Returns the path.

    keep: number of newest checkpoints to keep. milestone: also keep those whose step is a multiple of it; 0 for none.
    Raises OSError if it cannot be written; older checkpoints are then unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    path = folder / f"step-{step:09d}.pt"
    content = {
        "format": FORMAT, "step": step, "config": json.dumps(config), "versions": dict(versions()), "state": state
    }  # fmt: skip
    with partial_file(path) as partial:
        _save(content, partial.file)
        partial.become(path)
    removable = [old for old in checkpoints(folder) if not milestone or int(old.stem.removeprefix("step-")) % milestone]
    for old in removable[:-keep]:
        old.unlink()
    return path


def _save(content: dict[str, Any], file: Any) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:  # torch hides the operating system's error
        cause = error.__context__ or error.__cause__
        raise cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0]) from error


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name))


def load(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint: a dictionary with step, config (as from `to_dict`), versions of packages, and state.

    Raises UsageError for another checkpoint format.
    """
    content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if content["format"] != FORMAT:
        raise UsageError(
            f"{path} has checkpoint format {content['format']}, this version reads {FORMAT}; use the version that "
            "wrote it, or another --run"
        )
    content["config"] = json.loads(content["config"])
    return content


class Readable(NamedTuple):
    """The newest checkpoint of a folder that can be read. damaged: newer ones, each with the reason."""

    path: Path
    content: dict[str, Any]
    damaged: list[tuple[Path, str]]

    def warnings(self) -> list[str]:
        """A line for the log about each damaged checkpoint."""
        return [f"checkpoint {path} cannot be read ({reason}); trying the one before" for path, reason in self.damaged]


def newest_readable(folder: Path, *, device: torch.device | str = "cpu") -> Readable | None:
    """The newest checkpoint that can be read, or None in a folder without any.

    Raises UsageError for another checkpoint format, RunError if there are checkpoints and none can be read.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(checkpoints(folder)):
        try:
            return Readable(path, load(path, device=device), damaged)
        except UsageError:
            raise
        except Exception as error:
            damaged.append((path, type(error).__name__ + (f": {error}".splitlines()[0] if str(error) else "")))
    if damaged:
        path, reason = damaged[0]
        raise RunError(f"no checkpoint in {folder} can be read ({path.name}: {reason})")
    return None


def latest(
    folder: Path, config: dict[str, Any], *, device: torch.device, extend: bool = False
) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns the newest readable checkpoint, or None, and warnings about damaged ones and other package versions.

    extend: whether the configuration may have more epochs than the checkpoint. Raises UsageError, with the differing
    option, if it belongs to another configuration, and if none is readable.
    """
    try:
        found = newest_readable(folder, device=device)
    except RunError as error:
        raise UsageError(f"{error}; pass another --run to start over") from None
    if found is None:
        return None, []
    warnings = found.warnings()
    changed = differences(_with_defaults(found.content["config"]), config)
    longer = [(option, old, new) for option, old, new in changed if option == "epochs" and int(new) > int(old)]
    if changed and changed == longer and not extend:
        _, old, new = longer[0]
        raise UsageError(
            f"{folder.parent} holds a run with --epochs {old}, this command has {new}; pass --extend restart (the "
            "learning rate returns to its peak) or --extend tail (it stays low) to train longer, or another --run"
        )
    changed = [change for change in changed if change not in longer or not extend]
    if changed:
        option, old, new = changed[0]
        more = f" (and {len(changed) - 1} more options)" if len(changed) > 1 else ""
        raise UsageError(
            f"{folder.parent} holds a run with --{option} {old}, this command has {new}{more}; "
            "pass the same options to resume it, or another --run"
        )
    here, there = versions(), found.content.get("versions", {})
    other = [
        f"{name} {there[name]} (here {here[name]})" for name in NUMERICAL_PACKAGES if there.get(name, "") != here[name]
    ]
    if there and other:
        warnings.append(f"{found.path} was written with {', '.join(other)}; training resumes, equal up to rounding")
    return found.content, warnings


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with the default of every option that is newer than it."""
    try:
        completed: dict[str, Any] = to_dict(from_dict(Pretrain, config))
    except UsageError:  # of a version whose options are gone: `differences` names them
        return config
    return completed
