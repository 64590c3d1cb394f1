"""Does AugSelf, does CASSLE keep the information that its base method discards? Pretraining, evaluation and a page.

python studies/augself/study.py run RUN --data DATA     # resumes after an interruption
python studies/augself/study.py page RUN                # the page of the results so far
"""

import datetime
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import Positional, arg

from fastaugself.cli.exit_codes import run_command
from fastaugself.cli.parser import Command, choose
from fastaugself.data.inputs.folder import list_photos
from fastaugself.environment import environment
from fastaugself.errors import UsageError
from fastaugself.evaluation.splits import cut_by_class
from fastaugself.files import replace_file
from fastaugself.training.logs import start_logging
from fastaugself_kernels.params import default_blur_kernel
from jobs import Runner, Step
from page import study_page, write_page
from plan import (
    ALONE,
    FUSION_TASKS,
    PARTS,
    PRETRAIN,
    RANDOM,
    TASKS,
    Variant,
    default_recipe,
    variants,
)
from scores import read_value

log = logging.getLogger("fastaugself")

TUNING_SEED = 1000  # of the runs that choose learning rates; the tables hold none of them


@dataclass(frozen=True)
class Study:
    """Train and evaluate methods x {baseline, AugSelf, CASSLE, both, AugSelf alone, random weights} x seeds.

    Learning rates are tuned in the same way for all: each variant is trained at each of --lrs on 90 % of the training
    photos, and a linear probe on the other 10 % decides. The same command again resumes.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder for models, results, logs and study.html."""
    data: Path = Path("data")
    """Folder with the data sets imagenette128, produce50, signdigits10 and omniglot8."""
    methods: tuple[str, ...] = ("moco", "simsiam")
    """Base methods: presets of the recipe."""
    parts: tuple[str, ...] = (*PARTS, ALONE, RANDOM)
    """Variants of each method; `augself alone` and `random weights` are the controls."""
    invariances: bool = True
    """Also train the ventral and dorsal variants of the first method, and fuse them with its default."""
    seeds: int = 3
    """Number of runs of each variant, with seeds 0, 1, ..."""
    lrs: tuple[float, ...] = (0.03, 0.06, 0.12)
    """Learning rates to choose from, for a batch of 256."""
    epochs: int = 200
    """Epochs of each run."""
    tune_epochs: int = 0
    """Epochs of the runs that choose the learning rate; 0 = the value of --epochs."""
    size: int = 64
    """Size of the views in pixels."""
    images: int = 200
    """Number of images in the invariance measurement."""
    values: int = 16
    """Number of parameter values of each transform in the invariance measurement."""
    limit: int = 0
    """Use at most this many samples of each split in every evaluation; 0 = all."""
    jobs: int = 1
    """Number of commands that run in parallel on a CPU and share its cores; with GPUs, one command runs on each."""
    recipe: Path | None = None
    """Recipe to train; default: recipes/study.py of this checkout."""
    options: tuple[str, ...] = ()
    """Further options of every training run, without dashes: --options max-steps=100 backbone.width=16."""

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in (*PARTS, ALONE, RANDOM)]
        if unknown:
            raise UsageError(f"--parts {unknown[0]} is unknown; known: {', '.join((*PARTS, ALONE, RANDOM))}")
        if not self.methods or "base" not in self.parts:
            raise UsageError("the study compares with baselines: pass at least one of --methods, and base in --parts")
        for option, least in (("seeds", 1), ("epochs", 1), ("jobs", 1), ("tune_epochs", 0), ("limit", 0)):
            if getattr(self, option) < least:
                raise UsageError(f"--{option.replace('_', '-')} must be at least {least}, got {getattr(self, option)}")
        if not self.lrs or min(self.lrs) <= 0:
            raise UsageError(f"--lrs must be above 0, got {self.lrs}")

    def __call__(self) -> None:
        """Runs every step that is not done yet, and writes the page."""
        missing = [name for name in sorted({t.data for t in TASKS}) if not (self.data / name).is_dir()]
        if missing:
            raise UsageError(f"--data {self.data} lacks {', '.join(missing)}: pass the folder that holds them")
        recipe = self.recipe or default_recipe()
        if not recipe.exists():
            raise UsageError(f"{recipe} is missing; pass the path of recipes/study.py with --recipe")
        self._check_settings()
        runner = Runner(self.run, jobs=self.jobs)
        log.info("%d commands in parallel", len(runner.slots))
        self._write_data(runner)
        trained = variants(self.methods, self.parts, self.invariances)
        chosen = self._tune(runner, recipe, trained)
        work = [
            partial(self._one, runner, recipe, variant, chosen[variant.name], seed)
            for seed in range(self.seeds)
            for variant in trained
        ]
        runner.all(work)
        if RANDOM in self.parts:
            runner.all([partial(self._random, runner, seed) for seed in range(self.seeds)])
        if self.invariances:
            runner.all([partial(self._fuse, runner, seed) for seed in range(self.seeds)])
        print(write_page(self.run))

    def _check_settings(self) -> None:
        """Writes the settings to study.json; UsageError if the folder holds a study with other settings."""
        values = {
            "methods": list(self.methods),
            "parts": list(self.parts),
            "invariances": self.invariances,
            "lrs": list(self.lrs),
            "epochs": self.epochs,
            "tune_epochs": self.tune_epochs,
            "size": self.size,
            "limit": self.limit,
            "options": list(self.options),
        }
        path = self.run / "study.json"
        try:
            before = json.loads(path.read_text())["study"]
        except (OSError, ValueError, KeyError, TypeError):
            before = values
        changed = [name for name in values if before.get(name) != values[name]]
        if changed:
            name = changed[0]
            raise UsageError(
                f"{self.run} holds a study with --{name.replace('_', '-')} {before.get(name)}, this command has "
                f"{values[name]}; pass the same options to resume, or another folder"
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        record = {
            "study": values,
            "seeds": self.seeds,
            "command": sys.argv[1:],
            "date": datetime.date.today().isoformat(),
            "environment": environment(device),
        }
        replace_file(path, (json.dumps(record, indent=2) + "\n").encode())

    def _write_data(self, runner: Runner) -> None:
        """Writes .beton files of all training photos and of 90 % for tuning; links the other 10 % as its test split."""
        source = self.data / PRETRAIN
        tuning = self.run / "data" / "tuning"
        if not (tuning / "done").exists():
            listed = list_photos(source / "train")
            labels = torch.tensor(listed.labels).numpy()
            trained_on, held_out = cut_by_class(labels, 0.1, seed=TUNING_SEED)
            for split, indices in (("train", trained_on), ("test", held_out)):
                for i in indices:
                    path = tuning / split / listed.files[i]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)
                    os.symlink((source / "train" / listed.files[i]).resolve(), path)
            (tuning / "done").write_text("")
        for name, folder in (("train", source / "train"), ("tuning", tuning / "train")):
            out = str(self.run / "data" / f"{name}.beton")
            runner.step(Step(f"write-{name}", (*_fastaugself("write"), str(folder), out, "--overwrite")))

    def _tune(self, runner: Runner, recipe: Path, trained: Sequence[Variant]) -> dict[str, float]:
        """The best learning rate of each variant."""
        if len(self.lrs) == 1:
            return {variant.name: self.lrs[0] for variant in trained}
        pairs = [(variant, lr) for variant in trained for lr in self.lrs]
        runner.all([partial(self._try, runner, recipe, variant, lr) for variant, lr in pairs])
        scores: dict[str, dict[float, float]] = {}
        for variant, lr in pairs:
            out = self.run / "tuning" / f"{variant.name}-lr{lr:g}"
            scores.setdefault(variant.name, {})[lr] = read_value(out, ("value",))
        chosen = {name: max(by_lr, key=lambda lr: (by_lr[lr], -lr)) for name, by_lr in scores.items()}
        record = {
            name: {"chosen": chosen[name], "accuracy": {str(lr): v for lr, v in scores[name].items()}}
            for name in chosen
        }
        replace_file(self.run / "tuning.json", (json.dumps(record, indent=2) + "\n").encode())
        for name, lr in chosen.items():
            log.info("tuned  %s: lr %g", name, lr)
        return chosen

    def _try(self, runner: Runner, recipe: Path, variant: Variant, lr: float) -> None:
        name = f"{variant.name}-lr{lr:g}"
        folder, data = self.run / "tuning" / "models" / name, self.run / "data"
        epochs = self.tune_epochs or self.epochs
        command = self._train(recipe, variant, folder, data / "tuning.beton", lr, TUNING_SEED, epochs)
        runner.step(Step(f"tune-{name}", command))
        out = self.run / "tuning" / name
        command = self._eval(("linear",), [(name, folder)], data / "tuning", out)
        runner.step(Step(f"tune-{name}-linear", command, out))

    def _train(
        self, recipe: Path, variant: Variant, folder: Path, data: Path, lr: float, seed: int, epochs: int
    ) -> tuple[str, ...]:
        shared = {
            "--data.train": data,
            "--run": folder,
            "--optim.lr": lr,
            "--seed": seed,
            "--epochs": epochs,
            "--view.size": self.size,
            "--augment.blur-kernel": default_blur_kernel(self.size),
        }
        flat = [str(v) for pair in shared.items() for v in pair]
        further = [part for option in self.options for part in ("--" + option).split("=", 1)]
        return (sys.executable, str(recipe), *variant.options, *flat, *further)

    def _eval(
        self,
        command: Sequence[str],
        models: Sequence[tuple[str, Path | str]],
        data: Path,
        out: Path,
        *,
        limited: bool = True,
    ) -> tuple[str, ...]:
        named = [f"{label}@{path}" for label, path in models]
        shared = ("--data", str(data), "--out", str(out), "--cache", str(self.run / "cache"), "--size", str(self.size))
        limit = ("--limit", str(self.limit)) if self.limit and limited else ()
        return (*_fastaugself("eval"), command[0], *named, *shared, *command[1:], *limit)

    def _one(self, runner: Runner, recipe: Path, variant: Variant, lr: float, seed: int) -> None:
        name = f"{variant.name}-s{seed}"
        folder = self.run / "models" / name
        data = self.run / "data" / "train.beton"
        runner.step(Step(name, self._train(recipe, variant, folder, data, lr, seed, self.epochs)))
        self._measure(runner, name, folder)

    def _random(self, runner: Runner, seed: int) -> None:
        first = variants(self.methods, ("base",), False)[0]
        self._measure(runner, f"none-random-weights-s{seed}", f"random:{self.run / 'models' / first.name}-s{seed}")

    def _measure(self, runner: Runner, name: str, model: Path | str) -> None:
        done: set[tuple[str, ...]] = set()
        for task in TASKS:
            step = (*task.command, task.data)
            if step not in done:  # crop and jitter are one evaluation
                done.add(step)
                out = self.run / "results" / name / f"{task.command[0]}-{task.data}"
                command = self._eval(task.command, [(name, model)], self.data / task.data, out)
                runner.step(Step(f"{name}-{task.command[0]}-{task.data}", command, out))
        out = self.run / "results" / name / "invariance"
        figure = ("invariance", "--images", str(self.images), "--values", str(self.values))
        # No --limit: the whitening covariance needs more images than features.
        command = self._eval(figure, [(name, model)], self.data / PRETRAIN, out, limited=False)
        runner.step(Step(f"{name}-invariance", command, out))

    def _fuse(self, runner: Runner, seed: int) -> None:
        base = self.methods[0]
        models = [
            (part, self.run / "models" / f"{Variant(base, kind, ()).name}-s{seed}")
            for part, kind in (("default", "base"), ("ventral", "ventral"), ("dorsal", "dorsal"))
        ]
        name = f"{base}-fused-s{seed}"
        for task in FUSION_TASKS:
            out = self.run / "results" / name / f"{task.command[0]}-{task.data}"
            command = self._eval(task.command, models, self.data / task.data, out)
            runner.step(Step(f"{name}-{task.data}", command, out))


def _fastaugself(command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "fastaugself", command)


SUMMARY = (__doc__ or "").splitlines()[0]
COMMANDS: dict[str, Command] = {"run": Study, "page": study_page}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; exit status 0 done, 1 failed, 2 for wrong use."""
    start_logging(None, is_main=True)
    words = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        choose(COMMANDS, words, prog="study.py", description=SUMMARY)()
        return 0

    return run_command(command, less_memory="pass a smaller --jobs")


if __name__ == "__main__":
    sys.exit(main())
