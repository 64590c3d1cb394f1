"""`fastaugself bench NAME`, also `python -m fastaugself.bench NAME`."""

import sys
from collections.abc import Callable, Sequence

from ..errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """Runs one benchmark; the exit code."""
    import tyro

    from .augment import augment_benchmark
    from .disk import disk_benchmark
    from .e2e import e2e_benchmark
    from .loader import loader_benchmark
    from .scale import scale_benchmark
    from .step import step_benchmark
    from .tables import tables

    commands: dict[str, Callable[..., None]] = {
        "augment": augment_benchmark,
        "loader": loader_benchmark,
        "disk": disk_benchmark,
        "step": step_benchmark,
        "e2e": e2e_benchmark,
        "scale": scale_benchmark,
        "tables": tables,
    }
    if not arguments or arguments[0] not in (*commands, "-h", "--help"):
        raise UsageError(f"bench takes one of {', '.join(commands)}, got {arguments[0] if arguments else 'nothing'}")
    if arguments[0] in commands:
        tyro.cli(commands[arguments[0]], args=list(arguments[1:]), prog=f"fastaugself bench {arguments[0]}")
    else:
        print("usage: fastaugself bench {" + ",".join(commands) + "} [OPTIONS]")
    return 0


if __name__ == "__main__":
    from ..cli import main as command

    command(["bench", *sys.argv[1:]])
