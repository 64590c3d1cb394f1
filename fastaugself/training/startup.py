"""Start-up of a run: all ranks must have the same configuration, photos and checkpoint; environment.json."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ..config.serialize import differences
from ..distributed import on_main, world_size
from ..environment import environment
from ..errors import UsageError
from ..files import replace_file
from ..runs.lock import locked


def gathered(value: Any) -> list[Any]:
    """`value` of all ranks, in rank order. value: picklable."""
    found: list[Any] = [value] * world_size()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


@contextlib.contextmanager
def only_trainer(run: Path) -> Iterator[None]:
    """Context manager in which rank 0 has the lock of the run folder; UsageError on all ranks if it cannot have it."""
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(run)), what="locking the run folder")
        yield


def check_same_start(identity: dict[str, Any], fingerprint: int, photos: str) -> None:
    """Raises UsageError on all ranks if a rank has other options or photos than rank 0.

    identity: the configuration from `to_dict`; paths may differ. fingerprint, photos: hash and name of the data set.
    """
    (own, first), *others = gathered((identity, fingerprint))
    for rank, (options, other) in enumerate(others, start=1):
        for option, expected, got in differences(own, options):
            raise UsageError(
                f"rank {rank} was started with --{option} {got}, rank 0 with {expected}; pass the same options "
                "on all nodes"
            )
        if other != first:
            raise _other_photos(rank, photos)


def check_same_photos(fingerprint: object, photos: str) -> None:
    """Raises UsageError on all ranks if a rank has other photos than rank 0.

    fingerprint, photos: hash and name of the data sets.
    """
    first, *others = gathered(fingerprint)
    for rank, other in enumerate(others, start=1):
        if other != first:
            raise _other_photos(rank, photos)


def _other_photos(rank: int, photos: str) -> UsageError:
    return UsageError(f"rank {rank} has other photos than rank 0 in {photos}; copy the same files to all nodes")


def check_same_step(step: int, run: Path) -> None:
    """Raises UsageError on all ranks if a rank resumes from another step than rank 0."""
    first, *others = gathered(step)
    for rank, other in enumerate(others, start=1):
        if other != first:
            found = [f"that of step {s}" if s else "none" for s in (first, other)]
            raise UsageError(
                f"rank 0 found {found[0]} as the newest checkpoint in {run}, rank {rank} found {found[1]}: pass "
                "a --run on a file system that all nodes share"
            )


def write_environment(run: Path, device: torch.device, processes: int, baseline_losses: dict[str, float]) -> None:
    """Writes environment.json of a run folder: machine, versions, and the baseline losses for the report."""
    record = {**environment(device), "processes": processes, "baseline_losses": baseline_losses}
    replace_file(run / "environment.json", (json.dumps(record, indent=2) + "\n").encode())
