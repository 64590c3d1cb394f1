"""What the processes of a run must have in common, compared before there is work that could be lost."""

from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..config import differences
from ..errors import UsageError
from .distributed import world_size


def gathered(value: Any) -> list[Any]:
    """`value` of all processes, in the order of their ranks."""
    found: list[Any] = [value] * world_size()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


def check_same_start(identity: dict[str, Any], fingerprint: int, photos: str) -> None:
    """Raises UsageError, on all processes, where one has other options or photos than the leading one.

    identity: the configuration as `to_dict` gives it; paths may differ. fingerprint: of the photos.
    """
    (own, first), *others = gathered((identity, fingerprint))
    for rank, (options, other) in enumerate(others, start=1):
        for option, expected, got in differences(own, options):
            raise UsageError(
                f"process {rank} was started with --{option} {got}, process 0 with {expected}; pass the same options "
                "on all nodes"
            )
        if other != first:
            raise UsageError(
                f"process {rank} has other photos than process 0 under the names of {photos}; copy the same files to "
                "all nodes"
            )


def check_same_step(step: int, run: Path) -> None:
    """Raises UsageError, on all processes, where one goes on from another step than the leading one."""
    first, *others = gathered(step)
    for rank, other in enumerate(others, start=1):
        if other != first:
            found = [f"that of step {s}" if s else "none" for s in (first, other)]
            raise UsageError(
                f"process 0 found {found[0]} as the newest checkpoint in {run}, process {rank} found {found[1]}: pass "
                "a --run on a disk that all nodes see"
            )
