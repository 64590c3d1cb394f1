"""`fastaugself eval NAME`: what a representation kept."""

from collections.abc import Callable
from typing import Any


def commands() -> dict[str, Callable[..., Any]]:
    """Every command by its name."""
    from .commands import FEATURE_COMMANDS
    from .commands_views import InvarianceCommand, Layers
    from .study.command import StudyCommand
    from .study.page import study_page

    others: dict[str, Callable[..., Any]] = {"invariance": InvarianceCommand, "layers": Layers, "datasets": datasets}
    return {**FEATURE_COMMANDS, **others, "study": StudyCommand, "study-page": study_page}


def datasets() -> None:
    """List the data sets that --dataset takes, with the files that each expects."""
    from .datasets import readers

    for name, reader in readers().items():
        print(f"{name:<14} {' '.join(getattr(reader, 'layout', reader.__doc__ or '').split())}")
