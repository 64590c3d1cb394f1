"""Recipe files: their recipe and presets without starting a run, and `--recipe FILE` of the commands."""

import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    from ..config.schema import Pretrain

OPTION = "--recipe"
Recipe = Callable[[], "Pretrain"]


class LoadedRecipe(NamedTuple):
    """What a recipe file passes to `fastaugself.run`. presets: by the name that `--preset` takes, without "paper"."""

    recipe: Recipe
    presets: dict[str, Recipe]


collector: ContextVar[list[LoadedRecipe] | None] = ContextVar("collector", default=None)
"""While a list is set, `fastaugself.run` appends its arguments to it and returns instead of starting a run."""


def load_recipe(path: Path) -> LoadedRecipe:
    """Executes a recipe file as a script and returns its recipe and presets; no run starts.

    Raises UsageError for a file that does not exist, raises an exception, or never calls `fastaugself.run`.
    """
    if not path.is_file():
        raise UsageError(f"no such recipe: {path}")
    calls: list[LoadedRecipe] = []
    token, main_module = collector.set(calls), sys.modules["__main__"]
    try:
        _execute(path, "__main__")
    except Exception as error:
        raise UsageError(f"{path} is not a recipe: {type(error).__name__}: {error}") from None
    finally:
        sys.modules["__main__"] = main_module
        collector.reset(token)
    if not calls:
        raise UsageError(f"{path} is not a recipe: it does not call fastaugself.run")
    return calls[0]


def import_recipes(arguments: Sequence[str]) -> list[str]:
    """Imports each file given with `--recipe FILE`, which registers its methods, and returns the other arguments.

    Only files on the command line are imported: a run folder, which may be a download, names none.
    Raises UsageError for files that do not exist or cannot be imported.
    """
    rest, words = [], iter(arguments)
    for word in words:
        if word == OPTION:
            import_recipe(Path(next(words, "nothing")))
        elif word.startswith(OPTION + "="):
            import_recipe(Path(word.removeprefix(OPTION + "=")))
        else:
            rest.append(word)
    return rest


def import_recipe(path: Path) -> None:
    """Imports a recipe file as a module, so its `if __name__ == "__main__"` block is skipped. Raises UsageError."""
    if not path.is_file() or path.suffix != ".py":
        raise UsageError(f"{OPTION} needs a recipe's .py file, got {str(path)!r}")
    try:
        _execute(path, f"recipe_{path.stem}")
    except Exception as error:
        raise UsageError(f"{OPTION} {path} cannot be read ({type(error).__name__}: {error})") from None


def _execute(path: Path, name: str) -> None:
    """Executes the file as the module `name`, which stays in sys.modules: dataclasses look up annotations there."""
    spec = spec_from_loader(name, SourceFileLoader(name, str(path)))
    assert spec is not None and spec.loader is not None  # a loader was passed
    module = module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # a recipe may import files next to it, as when Python runs it
    spec.loader.exec_module(module)
