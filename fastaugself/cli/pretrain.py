"""Pretraining from the command line: parse the options of a recipe, train, export, write the report."""

import contextlib
import dataclasses
import difflib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import distributed
from ..aware import AWARE
from ..config.schema import Pretrain
from ..config.serialize import to_dict
from ..distributed import World
from ..errors import UsageError
from ..pretraining import run_pretraining
from ..runs.folder import configuration, read_config_file
from ..training.callbacks import Callback
from ..training.console import open_streams
from .exit_codes import run_command
from .parser import unboxed
from .recipe_file import LoadedRecipe, Recipe, collector

_PATHS = ("--data.train", "--data.val", "--init", "--run", "--run-dir")
_LESS_MEMORY = "pass --accumulate 2 or more, or a smaller --batch-size, --view.size or --method.queue"


def run(recipe: Recipe, callbacks: Sequence[Callback] = (), /, **presets: Recipe) -> None:
    """Runs a recipe with the options of the command line and ends the process with the code of `exit_codes`.

    recipe: returns the complete configuration, which options then change. callbacks: code of your own in the training
    loop. presets: variants for `--preset NAME`. While `open_recipe` executes a recipe file, this only records its
    arguments. Raises UsageError in a notebook or at Python's prompt, which have no command line: call `pretrain`.
    """
    calls = collector.get()
    if calls is not None:
        calls.append(LoadedRecipe(recipe, presets, callbacks))
        return
    if hasattr(sys, "ps1") and not hasattr(sys.modules["__main__"], "__file__"):
        raise UsageError(
            "run reads the options of a command line, which a notebook or a prompt does not have: call "
            f"fastaugself.pretrain({getattr(recipe, '__name__', 'recipe')}())"
        )
    sys.exit(main(recipe, presets, sys.argv[1:], callbacks))


def main(
    recipe: Recipe, presets: dict[str, Recipe], arguments: Sequence[str], callbacks: Sequence[Callback] = ()
) -> int:
    """Like `run`, with the given arguments; returns the exit code instead of ending the process."""
    open_streams()
    world: World | None = None

    def command() -> int:
        nonlocal world
        options = [argument for argument in arguments if argument not in ("--dry-run", "--print-config")]
        config = parse(recipe, presets, options)
        if len(options) < len(arguments):
            return _show(config, dry_run="--dry-run" in arguments, configuration="--print-config" in arguments)
        world = distributed.start(config.device)
        run_pretraining(config, world, callbacks=callbacks)
        return 0

    try:
        return run_command(command, less_memory=_LESS_MEMORY, is_main=lambda: world is None or world.is_main)
    finally:
        distributed.stop()


def _show(config: Pretrain, *, dry_run: bool, configuration: bool) -> int:
    """Prints the plan, the configuration as JSON, or both, on rank 0; returns 1 for a plan with faults, else 0."""
    if os.environ.get("RANK", "0") != "0":
        return 0
    faults = 0
    if dry_run:
        from .dry_run import plan

        text, faults = plan(config, processes=int(os.environ.get("WORLD_SIZE", "1")))
        print(text)
    if configuration:
        print("\n" * dry_run + json.dumps(to_dict(config), indent=2))
    return 1 if faults else 0


def _refuse_empty_paths(arguments: Sequence[str]) -> None:
    """Raises UsageError for an empty path, as `--data.val=$VAL` is without VAL: it would be the current folder."""
    for word, value in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, inline = word.partition("=")
        if option in _PATHS and (inline if equals else value) == "":
            none = f"pass {option} None for none, or " if option in ("--data.val", "--init") else "pass "
            raise UsageError(f"{option} is empty; {none}{option} with a path")


def parse(recipe: Recipe, presets: dict[str, Recipe], arguments: Sequence[str]) -> Pretrain:
    """The configuration of a command line: a preset or `--from config.json`, changed by the other options.

    arguments: without the program's name. Raises UsageError for unknown options and wrong values; `--help` prints and
    ends the process.
    """
    import tyro

    _refuse_empty_paths(arguments)
    known = {"paper": recipe, **presets}
    rest, chosen = list(_only(arguments)), {}
    for option in ("--preset", "--from"):
        for i, argument in enumerate(rest):
            if argument == option and i + 1 < len(rest):
                chosen[option] = rest[i + 1]
                del rest[i : i + 2]
                break
            if argument.startswith(option + "="):
                chosen[option] = argument.split("=", 1)[1]
                del rest[i]
                break
            if argument == option:
                raise UsageError(f"{option} needs a value: {' or '.join(known) if option == '--preset' else 'a file'}")
    if "--preset" in chosen and "--from" in chosen:
        raise UsageError("--preset and --from both choose the starting configuration; pass only one of them")
    if chosen.get("--preset", "paper") not in known:
        raise UsageError(f"--preset {chosen['--preset']} is unknown; this recipe has {', '.join(known)}")
    default = known[chosen.get("--preset", "paper")]()
    if "--from" in chosen:
        default = configuration(read_config_file(Path(chosen["--from"]), "--from"), f"--from {chosen['--from']}")
    others = list(_without("--view2.", arguments))
    if default.view2 is None and len(others) < len(arguments):  # view 2 starts as a copy of view 1, options included
        view = parse(recipe, presets, others).view
        default = dataclasses.replace(default, view=view, view2=view)
    # The docstring of the file has the published numbers; that of the function is one line.
    description = (getattr(recipe, "__globals__", {}).get("__doc__") or recipe.__doc__ or "").strip()
    description += (
        f"\n\n--preset {{{','.join(known)}}} selects a variant, --from FILE starts from the config.json of a run, "
        "--dry-run prints the schedule and the estimated time, memory and disk, and exits; --print-config prints the "
        "configuration for --from, and exits."
    )
    complaint, form = io.StringIO(), with_objectives(default)
    try:
        with contextlib.redirect_stderr(complaint), warnings.catch_warnings():
            # A method registered by a recipe is not in the annotation's union; tyro accepts it but warns.
            warnings.filterwarnings("ignore", message=".* does not match any type in Union")
            parsed, unknown = tyro.cli(
                type(form),
                default=form,
                args=rest,
                description=description,
                config=(tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
            )
    except SystemExit as end:
        if end.code == 2:
            raise UsageError(unboxed(complaint.getvalue())) from None
        raise
    if unknown:
        near = difflib.get_close_matches(unknown[0].split("=")[0], list(option_names(to_dict(form))), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "; --help lists all options"
        if not unknown[0].startswith("-"):
            hint = f"; if it is the photos, pass --data.train {unknown[0]}"
        raise UsageError(f"unknown option {unknown[0]}{hint}")
    objectives = [getattr(parsed, name) for name in AWARE if name != "augself"]
    aware = tuple(options for options in objectives if options.weights or options.only)
    return Pretrain(**{f.name: getattr(parsed, f.name) for f in dataclasses.fields(Pretrain)} | {"aware": aware})


def with_objectives(config: Pretrain) -> Any:
    """The configuration with one field for each objective, under its name: what the command line offers.

    Objectives that are not in `config.aware` have a weight of 0.
    """
    used = {options.name: options for options in config.aware}
    objectives = {name: used.get(name, options.off()) for name, options in AWARE.items() if name != "augself"}
    fields = [(name, type(options), dataclasses.field(default=options)) for name, options in objectives.items()]
    form = dataclasses.make_dataclass(
        "Pretrain", fields, bases=(Pretrain,), frozen=True, namespace={"__post_init__": lambda _: None}
    )
    return form(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Pretrain)})


def _only(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments with `--augself-only` written as `--augself.only`, and likewise for all objectives."""
    for argument in arguments:
        name = argument.removeprefix("--").removesuffix("-only")
        yield f"--{name}.only" if name in AWARE and argument == f"--{name}-only" else argument


def _without(prefix: str, arguments: Sequence[str]) -> Iterator[str]:
    """The arguments without options of this prefix and their values."""
    keep = True
    for argument in arguments:
        keep = not argument.startswith(prefix) if argument.startswith("--") else keep
        if keep:
            yield argument


def option_names(values: dict[str, Any], prefix: str = "--") -> Iterator[str]:
    """The names of all options of a configuration given as nested dictionaries."""
    for name, value in values.items():
        option = prefix + name.replace("_", "-")
        if isinstance(value, dict):
            yield from option_names(value, option + ".")
        else:
            yield option
