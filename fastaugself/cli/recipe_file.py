"""A recipe's own method in commands other than the recipe: its file is read, and no run begins."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError

OPTION = "--recipe"


def read_recipes(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--recipe FILE`; what those files register (docs/new-method.md) is known from then on.

    Only files that the command line names are read: a run folder, which may come from elsewhere, names none.
    Raises UsageError for files that are not there, or fail.
    """
    rest, words = [], iter(arguments)
    for word in words:
        if word == OPTION:
            read_recipe(Path(next(words, "nothing")))
        elif word.startswith(OPTION + "="):
            read_recipe(Path(word.removeprefix(OPTION + "=")))
        else:
            rest.append(word)
    return rest


def read_recipe(path: Path) -> None:
    """Runs the file as a module, so that its `run` does not start. Raises UsageError where that is not possible."""
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"{OPTION} needs a recipe's .py file, got {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations
    sys.path.append(str(path.absolute().parent))  # its neighbours are its to import, as when it is run
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{OPTION} {path} cannot be read ({type(error).__name__}: {error})") from None
