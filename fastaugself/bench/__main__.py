"""`fastaugself bench NAME`, also `python -m fastaugself.bench NAME`."""

import sys
from collections.abc import Callable


def commands() -> dict[str, Callable[..., None]]:
    """Every benchmark by its name."""
    from .augment import augment_benchmark
    from .disk import disk_benchmark
    from .e2e import e2e_benchmark
    from .loader import loader_benchmark
    from .scale import scale_benchmark
    from .step import step_benchmark
    from .tables import tables

    return {
        "augment": augment_benchmark,
        "loader": loader_benchmark,
        "disk": disk_benchmark,
        "step": step_benchmark,
        "e2e": e2e_benchmark,
        "scale": scale_benchmark,
        "tables": tables,
    }


if __name__ == "__main__":
    from ..cli import main

    main(["bench", *sys.argv[1:]])
