#!/usr/bin/env python3
"""The whole GPU round in less than eight minutes: correctness, launch shapes, speed beside peers, training on photos.

    scripts/gpu_round.py PHOTOS.beton [--out results/DEVICE]

Needs torch with CUDA, numba, simplejpeg, tyro, rich and pytest; the project need not be installed, and peers
are included if they are installed. To write the photos (31 MB) from fastai's Imagenette or another folder of photos:

    fastaugself write imagenette2/train photos.beton --max-side 96 --quality 80

Each part has a time limit and is terminated after it. The other parts run even if one fails or is terminated; the exit
status is 1 then. Outside a checkout, $FASTAUGSELF_COMMIT names the commit for the records. `--device cpu` runs small
versions of all parts, to test the round without a GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "kernels" / "fastaugself_kernels" / "triton" / "configs"
CACHE = ROOT / ".cache"
TOTAL = 470  # seconds


@dataclass(frozen=True)
class Part:
    """name: of the part and its log. seconds: time limit. command: arguments of the Python interpreter.

    skipped: reason for skipping the part.
    """

    name: str
    seconds: float
    command: Sequence[object] = ()
    skipped: str = ""


def parts(photos: Path, out: Path, run: Path, gpus: int) -> list[Part]:
    """The parts of a round, in order of importance. gpus: number of GPUs, 0 for a test on a CPU.

    The time limits add up to more than TOTAL: few parts need all of theirs, and with `--only` each gets its own.
    """
    cuda = gpus > 0
    bench = ("-m", "fastaugself", "bench")
    tiny: tuple[object, ...] = () if cuda else ("--device", "cpu", "--size", 32, "--rounds", 2, "--seconds", 0.01)
    peers = ("--rounds", 5, "--seconds", 0.2, "--limit", 30, "--patience", 75)
    train: tuple[object, ...] = (
        *("recipes/imagenet_moco_augself.py", "--preset", "demo", "--data.train", photos, "--data.val", None),
        *("--data.source", "native", "--run", run, "--log.no-tensorboard"),
    )
    if cuda:
        train += ("--view.size", 96, "--augment.blur-kernel", 9, "--backbone.width", 64, "--batch-size", 512)
        train += ("--method.queue", 8192, "--epochs", 10, "--log.every", 20)
    else:
        train += ("--device", "cpu", "--backbone.width", 8, "--batch-size", 16, "--method.queue", 64)
        train += ("--max-steps", 2, "--log.every", 1)
    augment = ("augment", "--source", photos, "--json", out / "augment.json", *(peers if cuda else tiny))
    if not cuda:
        augment += ("--photos", 4, "--quick", "--without", "kornia", "torchvision-v2", "oracle-batched")
    found = [
        Part("tests", 110, ("-m", "pytest", "-q", "-m", "gpu", "tests/training/test_gpu.py", "-p", "no:cacheprovider")),
        Part("tune", 70, ("-m", "fastaugself_kernels.tune", "--seconds", 50))
        if cuda
        else Part("tune", 0, skipped="shapes are measured on a GPU"),
        Part("augment", 140, (*bench, *augment)),
        Part("training", 90, train),
    ]
    small = ("--device", "cpu", "--width", 8, "--size", 32, "--batch", 8, "--rounds", 2)
    step = ("--rounds", 3, "--seconds", 0.3) if cuda else (*small, "--seconds", 0.01)
    found.append(Part("step", 200, (*bench, "step", "--json", out / "step.json", *step)))  # three compilations
    e2e = ("--rounds", 3, "--steps", 20) if cuda else (*small, "--steps", 1)
    found.append(Part("e2e", 100, (*bench, "e2e", "--source", photos, "--json", out / "e2e.json", *e2e)))
    if gpus > 1:
        scale = ("scale", "--json", out / "scale.json", "--processes", 1, gpus)
        found.append(Part("scale", 200, (*bench, *scale)))
    else:
        found.append(Part("scale", 0, skipped="weak scaling needs several GPUs"))
    if out.resolve().is_relative_to(ROOT / "results"):
        found.append(Part("tables", 20, ("scripts/readme_tables.py",)))
    else:
        found.append(Part("tables", 0, skipped=f"{out} is not under results/"))
    return found


def execute(part: Part, python: str, out: Path, left: float) -> dict[str, Any]:
    """Runs a part within its time limit and the remaining time of the round; returns its outcome for round.json."""
    if part.skipped:
        return {"name": part.name, "state": "skipped", "reason": part.skipped}
    limit = min(part.seconds, left)
    if limit <= 0:
        return {"name": part.name, "state": "failed", "reason": "no time left"}
    command = [python, *map(str, part.command)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    # All parts share compiled code; training would otherwise cache it in its run folder.
    caches = {f"{name}_CACHE_DIR": str(CACHE / name.lower()) for name in ("NUMBA", "TRITON", "TORCHINDUCTOR")}
    began = time.monotonic()
    with (out / f"{part.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**caches, **os.environ, "PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    outcome: dict[str, Any] = {"name": part.name, "state": "done" if status == 0 else "failed"}
    if status is None:
        outcome["reason"] = f"terminated after {limit:.0f} s"
    elif status:
        outcome["reason"] = f"exit status {status}"
    return outcome | {"seconds": round(time.monotonic() - began, 1), "limit": round(limit, 1)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminates a process and its children, which form a session."""
    for kind, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if kind == signal.SIGTERM:
            time.sleep(0.1)  # for its children


def device(python: str, cuda: bool) -> tuple[str, int]:
    """Name of the results folder (the GPU's name in lower case with hyphens), and number of GPUs."""
    if not cuda:
        return "cpu", 0
    code = "import torch; print(torch.cuda.get_device_name(), torch.cuda.device_count(), sep='\\n')"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(
            f"no GPU found: {found.stderr.strip().splitlines()[-1]}\n(pass --device cpu to test the round)"
        )
    name, count = found.stdout.strip().splitlines()[-2:]
    return name.lower().replace(" ", "-"), int(count)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a .beton file")
    parser.add_argument("--out", type=Path, help="folder of the results (default: results/DEVICE)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="run only these parts")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(arguments)
    if not options.photos.is_file():
        parser.error(f"there is no {options.photos}; the head of scripts/gpu_round.py says how to write one")
    local = ROOT / ".venv" / "bin" / "python"
    python = os.environ.get("PYTHON") or (str(local) if local.exists() else sys.executable)
    name, gpus = device(python, options.device == "cuda")
    out = (options.out or ROOT / "results" / name).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        planned = parts(options.photos.absolute(), out, run, gpus)
        unknown = set(options.only) - {part.name for part in planned}
        if unknown:
            parser.error(f"--only takes {', '.join(part.name for part in planned)}, got {', '.join(sorted(unknown))}")
        outcomes, end = [], time.monotonic() + TOTAL
        for part in planned:
            if options.only and part.name not in options.only:
                continue
            before = {path: path.stat().st_mtime_ns for path in CONFIGS.glob("*.json")}
            outcome = execute(part, python, out, end - time.monotonic())
            outcomes.append(outcome)
            print(
                "{name:10} {state:8} {seconds:>6} {reason}".format(**{"seconds": "", "reason": ""} | outcome),
                flush=True,
            )
            _copy_results(part.name, run, out, before)
            (out / "round.json").write_text(json.dumps({"device": options.device, "parts": outcomes}, indent=2) + "\n")
    print(f"results are in {out}")
    return int(any(outcome["state"] == "failed" for outcome in outcomes))


def _copy_results(part: str, run: Path, out: Path, before: dict[Path, int]) -> None:
    """Copies the metrics of training and the tuned launch shapes to the results, even if the part was terminated."""
    if part == "training":
        for source, target in (("metrics.jsonl", "training.jsonl"), ("environment.json", "training-environment.json")):
            if (run / source).exists():
                (out / target).write_bytes((run / source).read_bytes())
    if part == "tune":
        for path in CONFIGS.glob("*.json"):
            if before.get(path) != path.stat().st_mtime_ns:
                (out / "launch-shapes.json").write_bytes(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
