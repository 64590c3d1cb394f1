"""The parts of a GPU round: what each runs, how long it may take, and what its results must be.

Every part has two forms: the measurement on a GPU, and a rehearsal of it on a CPU that takes seconds.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "kernels" / "fastaugself_kernels" / "triton" / "configs"
GPU_TESTS = ("tests/training/test_gpu.py", "tests/kernels/test_collate.py", "tests/data/readers/test_nvimgcodec.py")
FLAT = 0.02  # growth of the reserved memory over the epochs that counts as none
SETTLED = 4  # epochs after which the reserve has its size: the second check of the features was in the fourth

Figures = dict[str, Any]


@dataclass(frozen=True)
class Machine:
    """What the parts need to know of where they run. gpus: 0 for a rehearsal on a CPU. packages: those installed."""

    name: str
    gpus: int
    cores: int
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Folders:
    """photos: the .beton file. out: the results. run: of the training part. tables: root of results/ for the tables."""

    photos: Path
    out: Path
    run: Path
    tables: Path | None


@dataclass(frozen=True)
class Part:
    """name: of the part and its log. seconds: budget. command: arguments of the Python interpreter.

    kept: files to copy to the results when the part has ended, however it ended: folder, pattern, and new name or "".
    verify: reads the results and returns their figures; raises ValueError if something is missing or wrong. skipped:
    reason for leaving the part out.
    """

    name: str
    seconds: float
    command: Sequence[object] = ()
    verify: Callable[[], Figures] = dict
    skipped: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[tuple[Path, str, str]] = ()


def parts(machine: Machine, at: Folders) -> list[Part]:
    """The parts of a round, in the order in which they run: first what others need, then by importance."""
    cuda = machine.gpus > 0
    bench = ("-m", "fastaugself", "bench")
    small = ("--device", "cpu", "--width", 8, "--size", 32, "--batch", 8, "--rounds", 2)

    def record(name: str, *keys: str) -> Callable[[], Figures]:
        return lambda: benchmark_figures(at.out / f"{name}.json", keys)

    compile_ = ("--tune", "--jobs", machine.cores) if cuda else ("--target", "sm_90", "--only", "small, 32 fp16")
    tests: tuple[object, ...] = ("-m", "pytest", "-q", "-m", "gpu", *GPU_TESTS, "-p", "no:cacheprovider")
    if cuda and "xdist" in machine.packages:
        tests += ("-n", min(8, machine.cores))
    tune = ("--seconds", 45) if cuda else ("--device", "cpu", "--out", at.out, "--seconds", 5)
    augment: tuple[object, ...] = ("--source", at.photos, "--json", at.out / "augment.json")
    if cuda:
        augment += ("--rounds", 5, "--seconds", 0.2, "--limit", 30, "--patience", 75)
    else:
        augment += ("--device", "cpu", "--size", 32, "--rounds", 2, "--seconds", 0.01, "--photos", 4, "--quick")
        augment += ("--without", "kornia", "torchvision-v2", "oracle-batched")
    head = ("scripts/head_to_head.py", "--json", at.out / "head.json")
    head += () if cuda else ("--device", "cpu", "--precision", "fp32")
    step = ("--rounds", 3, "--seconds", 0.3) if cuda else (*small, "--seconds", 0.01)
    e2e = ("--rounds", 3, "--steps", 20) if cuda else (*small, "--steps", 1)
    scale = (
        ("--processes", 1, machine.gpus) if cuda else (*small, "--processes", 2, "--norms", "sync", "--seconds", 0.01)
    )
    return [
        Part(
            "compile",
            90,
            ("-m", "fastaugself_kernels.precompile", *compile_),
            lambda: log_figures(at.out / "compile.log", r"(?P<kernels>\d+) kernels, (?P<failed>0) failed"),
        ),
        Part("tests", 150, tests, lambda: outcome_figures(at.out / "tests.log", cuda=cuda)),
        Part(
            "tune",
            60,
            ("-m", "fastaugself_kernels.tune", *tune),
            lambda: shape_figures(at.out),
            environment={} if cuda else {"TRITON_INTERPRET": "1"},
            kept=[(CONFIGS, f"{slug(machine.name)}.triton-*.json", "")] if cuda else (),
        ),
        Part("augment", 150, (*bench, "augment", *augment), record("augment", "copy", "emission")),
        Part(
            "training",
            150,
            training(machine, at),
            lambda: training_figures(at.out / "training.jsonl", cuda=cuda),
            kept=[
                (at.run, "metrics.jsonl", "training.jsonl"),
                (at.run, "environment.json", "training-environment.json"),
                (at.run, "evaluations.jsonl", "training-evaluations.jsonl"),
            ],
        ),
        Part(
            "head",
            260,
            head,
            record("head", "left_out"),
            skipped="" if "timm" in machine.packages else "needs timm: pip install --no-deps timm torchvision",
        ),
        Part("step", 240, (*bench, "step", "--json", at.out / "step.json", *step), record("step", "breakdown")),
        Part(
            "e2e",
            110,
            (*bench, "e2e", "--source", at.photos, "--json", at.out / "e2e.json", *e2e),
            record("e2e", "data_wait"),
        ),
        Part(
            "cudnn",
            90,
            (*bench, "e2e", "--source", at.photos, "--json", at.out / "cudnn.json", "--cudnn-benchmark", *e2e),
            lambda: cudnn_figures(at.out),
        ),
        Part(
            "scale",
            200,
            (*bench, "scale", "--json", at.out / "scale.json", *scale),
            record("scale", "ratios"),
            skipped="weak scaling needs several GPUs" if machine.gpus == 1 else "",
        ),
        Part(
            "tables",
            20,
            ("scripts/readme_tables.py", "--root", at.tables),
            lambda: {"page": written(at.out / "README.md")},
            skipped="" if at.tables else f"{at.out} is not under results/",
        ),
    ]


def slug(name: str) -> str:
    """A device's name as in names of files and folders: that of `fastaugself_kernels.triton.configs.name_of`."""
    return "-".join(re.findall(r"[a-z0-9.]+", name.lower()))


def training(machine: Machine, at: Folders) -> tuple[object, ...]:
    """MoCo v2 + AugSelf on the photos: a ResNet-18 at 96 px for 12 epochs, with checks on the same photos."""
    command: tuple[object, ...] = ("recipes/imagenet_moco_augself.py", "--preset", "demo", "--data.train", at.photos)
    command += ("--data.source", "native", "--run", at.run, "--log.no-tensorboard")
    if machine.gpus:
        command += ("--data.val", at.photos, "--log.knn-epochs", 4)  # a check has a loader, and memory, of its own
        command += ("--view.size", 96, "--augment.blur-kernel", 9, "--backbone.width", 64, "--batch-size", 512)
        return (*command, "--method.queue", 8192, "--epochs", 12, "--log.every", 6)
    command += ("--data.val", None, "--device", "cpu", "--backbone.width", 8, "--batch-size", 16)
    return (*command, "--method.queue", 64, "--max-steps", 2, "--log.every", 1)


def written(path: Path) -> str:
    """The name of a file. Raises ValueError if it is missing or empty."""
    if not path.is_file() or not path.stat().st_size:
        raise ValueError(f"{path.name} was not written")
    return path.name


def log_figures(path: Path, pattern: str) -> Figures:
    """The named groups of the last match of `pattern` in a log, as whole numbers. Raises ValueError without a match."""
    found = [*re.finditer(pattern, path.read_text(errors="replace"))]
    if not found:
        raise ValueError(f"{path.name} has no line like {pattern!r}")
    return {name: int(value) for name, value in found[-1].groupdict().items()}


def outcome_figures(path: Path, *, cuda: bool) -> Figures:
    """Numbers of tests by outcome, from pytest's last line. Raises ValueError if none passed (on a CPU: were there)."""
    last = path.read_text(errors="replace").strip().splitlines()[-1:]
    counts = {
        outcome: int(count) for count, outcome in re.findall(r"(\d+) (passed|failed|skipped|error)", " ".join(last))
    }
    needed = "passed" if cuda else "skipped"
    if not counts.get(needed):
        raise ValueError(f"no GPU test {needed}: {' '.join(last) or 'the log is empty'}")
    return counts


def shape_figures(out: Path) -> Figures:
    """The measured times of the launch shapes, from the file that `tune` wrote."""
    found = [*out.glob("*.triton-*.json")]
    if not found:
        raise ValueError("no launch shapes were written")
    measured = json.loads(found[0].read_text())["measured"]
    return {"file": found[0].name, **{k: v for k, v in measured.items() if k.startswith("microseconds")}}


def benchmark_figures(path: Path, keys: Sequence[str]) -> Figures:
    """Rates and ratios of a benchmark's record. Raises ValueError if it has no rows, or if one of `keys` is missing."""
    result = json.loads((path.parent / written(path)).read_text())
    missing = [key for key in ("environment", "config", "rows", *keys) if key not in result]
    if missing:
        raise ValueError(f"{path.name} lacks {', '.join(missing)}")
    if not result["rows"]:
        raise ValueError(f"{path.name} has no rows")
    unit = next(key for key in result["rows"][0] if key.endswith("_per_s"))
    rates = {row["name"]: row[unit] for row in result["rows"]}
    wrong = [name for name, rate in rates.items() if not (math.isfinite(rate) and rate > 0)]
    if wrong:
        raise ValueError(f"{path.name} has no rate for {', '.join(wrong)}")
    ratios = {name: r["median"] if isinstance(r, dict) else r for name, r in result.get("ratios", {}).items()}
    figures: Figures = {unit: rates, "ratios": ratios}
    if left_out := {peer["name"]: peer["reason"] for peer in result.get("left_out", ())}:
        figures["left_out"] = left_out
    return figures | {key: result[key] for key in ("data_wait", "device_idle") if result.get(key) is not None}


def cudnn_figures(out: Path) -> Figures:
    """Rates with algorithms of cuDNN that were measured, and their ratios to those of the e2e part."""
    figures = benchmark_figures(out / "cudnn.json", ("data_wait",))
    without = benchmark_figures(out / "e2e.json", ("data_wait",))["samples_per_s"]
    return figures | {"vs_e2e": {name: rate / without[name] for name, rate in figures["samples_per_s"].items()}}


def training_figures(path: Path, *, cuda: bool) -> Figures:
    """Speed, and the reserved memory of the GPU by epoch. Raises ValueError for a NaN, and if the reserve grows."""
    lines = [json.loads(line) for line in (path.parent / written(path)).read_text().splitlines()]
    wrong = [line["step"] for line in lines if not math.isfinite(line["loss_ssl"])]
    if wrong:
        raise ValueError(f"the loss is no finite number at step {wrong[0]}")
    figures: Figures = {"pairs_per_s": lines[-1]["pairs_per_s"], "data_wait": lines[-1]["data_wait"]}
    if not cuda:
        return figures
    reserved = {math.ceil(line["epoch"]): line["memory_reserved_gib"] for line in lines}  # the last line of each epoch
    figures["reserved_gib_by_epoch"] = [round(reserved[epoch], 3) for epoch in sorted(reserved)]
    settled = [reserved[epoch] for epoch in sorted(reserved)][SETTLED:]
    if len(settled) < 3:
        raise ValueError(f"the reserved memory of {len(reserved)} epochs does not show whether it grows")
    figures["reserved_growth"] = settled[-1] / settled[0] - 1
    if figures["reserved_growth"] > FLAT:
        by_epoch = ", ".join(f"{value:.2f}" for value in figures["reserved_gib_by_epoch"])
        raise ValueError(f"the reserved memory grows: {by_epoch} GiB after the epochs")
    return figures


def calls(planned: Sequence[Part], usable: float) -> list[list[str]]:
    """The names of the parts by call if every part takes its whole budget. usable: seconds of a call."""
    found: list[list[str]] = []
    left = 0.0
    for part in planned:
        if part.skipped:
            continue
        if part.seconds > left:
            found.append([])
            left = usable
        left -= part.seconds
        found[-1].append(part.name)
    return found
