"""`fastaugself eval NAME`: what a representation kept."""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError
from ..usage import unboxed


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


def main(arguments: Sequence[str]) -> None:
    """Runs one command."""
    import tyro

    known = commands()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        raise UsageError(f"eval takes one of {', '.join(known)}, got {arguments[0]}")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            made = tyro.extras.subcommand_cli_from_dict(
                known, args=list(arguments), description=__doc__, prog="fastaugself eval"
            )
    except SystemExit as end:
        if end.code == 2:
            raise UsageError(re.sub(r"^Error parsing \w+: ", "", unboxed(complaint.getvalue()))) from None
        raise
    if callable(made):
        made()
