"""The command `fastaugself`: data sets, views and exports from the shell."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..bench.cli import COMMANDS as benchmarks
from ..errors import RunError, UsageError, of_the_system
from ..evaluation.cli import COMMANDS as evaluations
from ..runs.folder import configuration, read_config, read_config_file
from ..training.logs import start_logging
from .parser import Command, Group, choose
from .recipe_file import read_recipes

DESCRIPTION = f"""{__doc__}

Exit codes: 0 done, 1 failed or found faults, 2 wrong use. Pretraining is `python recipes/NAME.py`.
`fastaugself --version` prints the version.
`--recipe FILE`, with any command, makes the method known that a recipe of yours registers, and so opens its runs.
"""
PolicyName = Literal["moco_v2", "simclr", "byol", "spatial", "appearance", "none", "all"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and ends the process with 0, 1 (failure) or 2 (wrong use)."""
    start_logging(None, is_main=True)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            if list(arguments) == ["--version"]:
                print("fastaugself", version("fastaugself"))
                return
            choose(COMMANDS, read_recipes(arguments), prog="fastaugself", description=DESCRIPTION)()
        finally:
            sys.stdout.flush()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        print(f"error: this takes more memory than there is ({error})", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the exit
        sys.exit(141)
    except OSError as error:  # the system's: a folder that may not be read, a full disk
        print(f"error: {of_the_system(error)}", file=sys.stderr)
        sys.exit(1)


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
    """Write photos to a .beton file; JPEGs pass through untouched where they can. Stopped, it goes on where it was.

    Args:
        source: Folder with one folder of photos per class, or with photos; .tar shards of WebDataset, .parquet or
            .arrow files (one, a folder of them, or a pattern in quotes); a .txt list of paths; or stl10_binary.
        out: The .beton file to write.
        max_side: Shrink photos whose longer side exceeds this many pixels; 0 = never.
        quality: JPEG quality of what must be encoded again.
        workers: Threads; 0 = as many as there are cores.
        overwrite: Replace `out` where it exists.
        skip_unreadable: Leave photos out that cannot be read, and list them in OUT.beton.unreadable.txt.
        image_column: Where there are columns, the one with the photos; found by itself where only one can be it.
        label_column: Where there are columns, the one with the labels; none = no labels.
        classes: Keep these classes only: imagenet100 (the hundred that papers use), or a text file, a name a line.
        json: Print what was written as JSON.
    """
    from ..data.inputs.convert import write_photos
    from ..data.inputs.samples import Columns

    written = write_photos(
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
    """Show what a .beton file holds, and how fast it decodes here.

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
    """Check a .beton file: its structure and, against its manifest, every byte. Exits with 1 if anything is wrong.

    Args:
        beton: The file.
        workers: Threads; 0 = as many as there are cores.
        show: The most faults to print.
        json: Print JSON, with every fault.
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
    columns: bool = False,
) -> None:
    """Draw photos with their views and every augmentation parameter in words.

    Args:
        source: A photo, a folder of photos, or a .beton file.
        out: A .png, .webp or .html file.
        policy: Augmentation policy; all = one after the other.
        count: Photos to draw.
        size: Side of the views in pixels.
        seed: Key of the randomness.
        epoch: Epoch whose views are drawn.
        num_local_crops: Further small views of each photo, as in multi-crop.
        columns: Draw what every column of the parameter tensor does instead, on one photo.
    """
    from ..views.command import write_views

    options = {"count": count, "size": size, "seed": seed, "epoch": epoch, "num_local_crops": num_local_crops}
    print(write_views(source, out, policy=policy, columns=columns, **options))


def export(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    out: Path | None = None,
    onnx: bool = False,
    push: str = "",
) -> None:
    """Export the backbone of a run's newest checkpoint to safetensors under torchvision's and timm's names.

    A README.md beside it is the model's card.

    Args:
        run: The run folder.
        out: Folder to write; default the run's export/.
        onnx: Write model.onnx too, checked with onnxruntime.
        push: Repository of the Hugging Face Hub, USER/NAME, that gets these files when all are written and checked;
            made, private, where it is not there.
    """
    read_config(run)  # a wrong path is refused before torch is imported
    from ..export.backbone import export_run

    print(export_run(run, out, onnx=onnx, push=push))


def report(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...")],
    out: Path | None = None,
) -> None:
    """Write a run's report.html again, also while it trains; or compare several runs on one page.

    Args:
        runs: Run folders.
        out: File for a comparison; default comparison.html.
    """
    for run in runs:
        read_config(run)  # a wrong path is refused before torch is imported
    from ..report.compare import report_runs

    print(report_runs(runs, out))


def replay(record: Annotated[Positional[Path], arg(metavar="RUN/not-finite.json")], rerun: bool = False) -> None:
    """Run the batch again whose loss was not finite, and name the first module that gives values that are not.

    Args:
        record: The not-finite.json that the run left in its folder.
        rerun: Take the steps from the last checkpoint to that batch again first, on one device.
    """
    from ..report.replay import replay as run_again

    print(run_again(record, rerun=rerun))


def doctor(config: Path | None = None, json: bool = False) -> None:
    """Check this machine: versions, GPU, back-ends, memory and disk, with the remedy for each fault.

    Args:
        config: A run's config.json, whose needs are checked; default is MoCo on ResNet-50.
        json: Print JSON, for scripts and bug reports.
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
    """Print the shell's completion of this command, and of recipes.

    Args:
        shell: Write it to a file that ~/.bashrc or ~/.zshrc sources.
        recipes: Files whose options to complete after `python FILE` and `torchrun ... FILE`.
    """
    from .completion import completion as script

    print(script(shell, recipes, COMMANDS))


COMMANDS: dict[str, Command | Group] = {
    "doctor": doctor,
    "write": write,
    "info": info,
    "verify": verify,
    "views": views,
    "export": export,
    "report": report,
    "replay": replay,
    "eval": Group("Measure what a representation kept.", evaluations),
    "bench": Group("Measure how fast this machine is, beside other programs.", benchmarks),
    "completion": completion,
}
