"""fastaugself: data sets, views, exports, evaluation and benchmarks on the command line."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..bench.cli import COMMANDS as benchmarks
from ..errors import UsageError
from ..evaluation.cli import COMMANDS as evaluations
from ..evaluation.cli import features
from ..runs.folder import configuration, read_config, read_config_file
from ..training.console import open_streams
from ..training.logs import start_logging
from .exit_codes import run_command
from .parser import Command, Group, choose
from .recipe_file import LoadedRecipe, find_recipe, import_recipes, list_recipes, open_recipe

DESCRIPTION = f"""{__doc__}

Exit codes: 0 done, 1 failed or found faults, 2 wrong use.
`fastaugself --version` prints the version.
`--recipe FILE` imports FILE first, so that runs trained with a method registered there can be loaded.
"""
PolicyName = Literal["moco_v2", "simclr", "byol", "spatial", "appearance", "none", "all"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; a failure ends the process with the code of `exit_codes`."""
    open_streams()
    start_logging(None, is_main=True)
    words = sys.argv[1:] if arguments is None else arguments

    if list(words[:1]) == ["pretrain"]:
        sys.exit(pretrain_command(words[1:]))

    def command() -> int:
        if list(words) == ["--version"]:
            print("fastaugself", version("fastaugself"))
        else:
            choose(COMMANDS, import_recipes(words), prog="fastaugself", description=DESCRIPTION)()
        return 0

    code = run_command(
        command,
        less_memory="pass a smaller --batch-size or --workers where the command has one",
        is_main=lambda: os.environ.get("RANK", "0") == "0",
    )
    if code:
        sys.exit(code)


def pretrain_command(words: Sequence[str]) -> int:
    """`fastaugself pretrain RECIPE [--OPTION ...]`: runs a recipe with these options, and returns the exit code.

    It has its own parser, because the options are those of the recipe.
    """

    found: list[tuple[LoadedRecipe, list[str]]] = []

    def find() -> int:
        arguments = import_recipes(words)
        if not arguments or arguments[0] in ("-h", "--help"):
            print(PRETRAIN_HELP, *(f"  {name:30s}{about}" for name, about in list_recipes().items()), sep="\n")
        elif arguments[0].startswith("-"):
            raise UsageError(
                f"pretrain takes the recipe first, got {arguments[0]}: fastaugself pretrain NAME {arguments[0]} ..."
            )
        else:
            found.append((open_recipe(find_recipe(arguments[0])), arguments[1:]))
        return 0

    code = run_command(find, less_memory="")
    if not found:
        return code
    from .pretrain import main as run_recipe

    (loaded, options) = found[0]
    return run_recipe(loaded.recipe, loaded.presets, options, loaded.callbacks)


PRETRAIN_HELP = """usage: fastaugself pretrain RECIPE [--OPTION ...]
       torchrun --nproc-per-node=N -m fastaugself pretrain RECIPE [--OPTION ...]

Pretrain an image encoder. RECIPE is one of the names below, or a .py file of your own; its options:
fastaugself pretrain RECIPE --help.
"""


def pretrain(recipe: Annotated[Positional[str], arg(metavar="RECIPE")]) -> None:
    """Pretrain an image encoder with a recipe: a name, or a .py file. Its options follow: pretrain RECIPE --help.

    Args:
        recipe: A recipe that comes with the package (`fastaugself pretrain` lists them), or a file of your own.
    """
    sys.exit(pretrain_command([recipe]))


def _json(values: Any) -> str:
    return dumps(values, indent=2, default=str)  # paths are strings there


def write(
    source: Annotated[Positional[str], arg(metavar="SOURCE")],
    out: Annotated[Positional[Path], arg(metavar="OUT.beton")],
    max_side: int = 0,
    quality: int = 90,
    workers: int = 0,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    image_column: str = "",
    label_column: str = "",
    classes: str = "",
    json: bool = False,
) -> None:
    """Write photos to a .beton file; JPEGs are copied without re-encoding where possible. Run it again to resume.

    Args:
        source: Folder of photos, with or without one subfolder per class; WebDataset .tar shards, .parquet or .arrow
            files (one, a folder of them, or a quoted pattern); a .txt list of paths; or stl10_binary.
        out: The .beton file to write.
        max_side: Shrink photos whose longer side exceeds this many pixels; 0 = never.
        quality: JPEG quality of photos that must be re-encoded.
        workers: Number of threads; 0 = number of cores.
        overwrite: Replace `out` if it exists.
        skip_unreadable: Leave out photos that cannot be read, and list them in OUT.beton.unreadable.txt.
        image_column: Column of a table that holds the photos; detected if there is only one candidate.
        label_column: Column of a table that holds the labels; none = no labels.
        classes: Keep only these classes: imagenet100 (the papers' 100 classes), or a text file with one name per line.
        json: Print what was written as JSON.
    """
    from ..data.inputs.convert import write_beton
    from ..data.inputs.samples import Columns

    written = write_beton(
        source,
        out,
        max_side=max_side,
        quality=quality,
        workers=workers,
        overwrite=overwrite,
        skip_unreadable=skip_unreadable,
        columns=Columns(image_column, label_column),
        classes=classes,
    )
    print(_json(written._asdict()) if json else written)


def info(beton: Annotated[Positional[Path], arg(metavar="FILE.beton")], json: bool = False) -> None:
    """Show the contents of a .beton file and its decoding speed on this machine.

    Args:
        beton: The file.
        json: Print JSON.
    """
    from ..data.beton.info import describe, facts

    known = facts(beton)
    print(_json(known) if json else describe(known))


def verify(
    beton: Annotated[Positional[Path], arg(metavar="FILE.beton")],
    workers: int = 0,
    show: int = 100,
    json: bool = False,
) -> None:
    """Check the structure of a .beton file and compare every byte with its manifest. Exit code 1 if a fault is found.

    Args:
        beton: The file.
        workers: Number of threads; 0 = number of cores.
        show: Maximum number of faults to print.
        json: Print JSON with every fault.
    """
    from ..data.beton.verify import verify_beton

    if show < 0:
        raise UsageError(f"--show must be at least 0, got {show}")
    verified = verify_beton(beton, workers=workers, show_progress=True)
    if json:
        print(_json(verified._asdict()))
    else:
        hidden = len(verified.faults) - show
        more = [f"... and {hidden} more"] if hidden > 0 else []
        print(*verified.faults[:show], *more, verified, sep="\n")
    sys.exit(1 if verified.faults else 0)


def views(
    source: Annotated[Positional[Path], arg(metavar="PHOTOS")],
    out: Path = Path("views.png"),
    policy: PolicyName = "moco_v2",
    count: int = 4,
    size: int = 224,
    seed: int = 0,
    epoch: int = 0,
    num_local_crops: int = 0,
) -> None:
    """Draw photos with their views and all augmentation parameters in words.

    Args:
        source: A photo, a folder of photos, or a .beton file.
        out: Output file: .png, .webp or .html.
        policy: Augmentation policy; all = every policy, one below another.
        count: Number of photos to draw.
        size: Height and width of the views in pixels.
        seed: Random seed, as in training.
        epoch: Epoch whose views are drawn.
        num_local_crops: Number of local crops per photo (multi-crop, as in SwAV).
    """
    from ..views.command import write_views

    options = {"count": count, "size": size, "seed": seed, "epoch": epoch, "num_local_crops": num_local_crops}
    print(write_views(source, out, policy=policy, **options))


def export(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    out: Path | None = None,
    onnx: bool = False,
    push: str = "",
) -> None:
    """Export the backbone of a run's newest checkpoint to safetensors with torchvision's and timm's parameter names.

    The model card is written to README.md in the same folder.

    Args:
        run: The run folder.
        out: Output folder; default: export/ in the run folder.
        onnx: Also write model.onnx, and check it with onnxruntime.
        push: Hugging Face Hub repository USER/NAME to upload to, after all files are written and checked; created as
            a private repository if it does not exist.
    """
    read_config(run)  # a wrong path is refused before torch is imported
    from ..export.backbone import export_run

    print(export_run(run, out, onnx=onnx, push=push))


def report(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...")],
    out: Path | None = None,
) -> None:
    """Write the report.html of a run again, even while it is training; or compare several runs on one page.

    Args:
        runs: Run folders.
        out: Output file of a comparison; default: comparison.html.
    """
    for run in runs:
        read_config(run)  # a wrong path is refused before torch is imported
    from ..report.compare import report_runs

    print(report_runs(runs, out))


def replay(record: Annotated[Positional[Path], arg(metavar="RUN/not-finite.json")], rerun: bool = False) -> None:
    """Re-run the batch whose loss was NaN or Inf and report the first module whose output has NaN or Inf.

    Args:
        record: not-finite.json in the run folder.
        rerun: First repeat the training steps from the last checkpoint up to that batch, on one device.
    """
    from ..report.replay import replay as run_again

    print(run_again(record, rerun=rerun))


def doctor(config: Path | None = None, json: bool = False) -> None:
    """Check this machine (versions, GPU, back-ends, memory, disk) and print a remedy for each fault.

    Args:
        config: config.json of the run to check for; default: MoCo v2 with ResNet-50 at 224 px.
        json: Print JSON for scripts and bug reports.
    """
    from .doctor import as_json, diagnose, report

    needs = configuration(read_config_file(config, "--config"), f"--config {config}") if config else None
    findings = diagnose(needs)
    print(_json(as_json(findings)) if json else report(findings))
    sys.exit(any(finding.state == "fault" for finding in findings))


def completion(
    shell: Positional[Literal["bash", "zsh"]],
    recipes: Annotated[Positional[tuple[Path, ...]], arg(metavar="[RECIPE.py ...]")] = (),
) -> None:
    """Print a shell completion script for this command and for recipes.

    Args:
        shell: Shell to print it for; save it to a file that ~/.bashrc or ~/.zshrc sources.
        recipes: Recipe files; their options are completed after `python FILE` and `torchrun ... FILE`.
    """
    from .completion import completion as script

    print(script(shell, recipes, COMMANDS))


COMMANDS: dict[str, Command | Group] = {
    "doctor": doctor,
    "pretrain": pretrain,
    "write": write,
    "info": info,
    "verify": verify,
    "views": views,
    "export": export,
    "report": report,
    "replay": replay,
    "eval": Group("Evaluate a frozen encoder (k-NN, linear probe, few-shot, ...).", evaluations),
    "features": features,
    "bench": Group("Benchmark against other libraries on this machine.", benchmarks),
    "completion": completion,
}
