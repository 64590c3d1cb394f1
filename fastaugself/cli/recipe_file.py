"""Recipes: those that come with the package, files of one's own, and `--recipe FILE` of the commands."""

import ast
import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    from ..config.schema import Pretrain
    from ..training.callbacks import Callback

OPTION = "--recipe"
Recipe = Callable[[], "Pretrain"]


class LoadedRecipe(NamedTuple):
    """What a recipe file passes to `fastaugself.run`. presets: by the name that `--preset` takes, without "paper"."""

    recipe: Recipe
    presets: dict[str, Recipe]
    callbacks: Sequence["Callback"] = ()


collector: ContextVar[list[LoadedRecipe] | None] = ContextVar("collector", default=None)
"""While a list is set, `fastaugself.run` appends its arguments to it and returns instead of starting a run."""


FOLDER = Path(__file__).parents[1] / "recipes"
"""The recipes of the package: in a checkout, a link to `recipes/`."""


def list_recipes() -> dict[str, str]:
    """The recipes that come with the package: name to the first line of its documentation."""
    return {path.stem: _summary(path) for path in sorted(FOLDER.glob("*.py"))}


def _summary(path: Path) -> str:
    documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return documentation.partition("\n")[0]


def find_recipe(name: str | os.PathLike[str]) -> Path:
    """The file of a recipe: a path that ends in .py, or the name of one that comes with the package.

    Raises UsageError for an unknown name, with the nearest one.
    """
    text = os.fspath(name)
    if text.endswith(".py") or os.sep in text:
        return Path(text)
    known = [path.stem for path in sorted(FOLDER.glob("*.py"))]
    if text in known:
        return FOLDER / f"{text}.py"
    near = difflib.get_close_matches(text, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
    raise UsageError(f"no recipe is called {text}; {hint} The name of a file of your own ends in .py")


def load_recipe(recipe: str | os.PathLike[str], *, preset: str = "paper", **changes: Any) -> "Pretrain":
    """The configuration of a recipe, for `pretrain`.

    recipe: the name of one that comes with the package (`list_recipes`), or the path of a .py file. preset: as
    `--preset` takes it. changes: fields of `Pretrain` to replace, such as `epochs=10` or `data=Data(train="photos")`;
    for a single option of a part, `dataclasses.replace(config.optim, lr=0.1)`.

    Raises UsageError for unknown recipes, presets and fields, and for values that cannot work.
    """
    found = open_recipe(find_recipe(recipe))
    presets = {"paper": found.recipe, **found.presets}
    if preset not in presets:
        raise UsageError(f"recipe {recipe} has no preset {preset!r}; it has {', '.join(presets)}")
    config = presets[preset]()
    fields = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}"
            raise UsageError(f"Pretrain has no field {name!r}; {hint}")
    return dataclasses.replace(config, **changes)


def open_recipe(path: Path) -> LoadedRecipe:
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
