#!/usr/bin/env python3
"""Barlow Twins with ViT-S/16 on one GPU, beside the speed that stable-pretraining publishes for it.

    scripts/head_to_head.py --json head.json [--photos PHOTOS.beton] [--precision fp16 bf16]

Trains `recipes/imagenet_barlow_augself.py --preset imagenette_vits`: a batch of 256 photos, two views of 224 px, and 8
decoding threads, from JPEG to optimizer step. Without --photos it writes as many photos as Imagenette has, crops of
375 x 500 of the detailed photos of scikit-image and scikit-learn, so that decoding is the work that it is there.
Needs timm. `--device cpu` trains a tiny model for a few steps, as a test.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastaugself.bench.harness import LeftOut, Row, median_and_range, record, write_json
from fastaugself.bench.loader_photos import write_beton
from fastaugself.cli.exit_codes import run_command
from fastaugself.errors import RunError, UsageError
from fastaugself.runs.records import is_number, read_lines

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "imagenet_barlow_augself.py"
SOURCE = "galilai-group/stable-pretraining at 11bedae, benchmarks/imagenet10/RESULTS.md"
PUBLISHED = {"kornia, stacked": 910.1, "kornia, two chains": 766.6, "torchvision": 514.3}
"""Photos per second on one H200: fp16 mixed precision, 8 workers, mean of 30 steps after 5."""
BATCH, WORKERS, IMAGENETTE = 256, 8, 9469
STEPS, EVERY, WARM = 120, 10, 3  # steps, steps per rate, and rates that are left out because code is compiled in them
TINY = {"batch": 4, "photos": 8, "steps": 2, "every": 1, "warm": 1}


def command(photos: Path, run: Path, precision: str, *, tiny: bool) -> list[object]:
    """The recipe with its options, for the Python interpreter."""
    options: list[object] = [RECIPE, "--preset", "imagenette_vits", "--data.train", photos, "--data.source", "native"]
    options += ["--data.workers", WORKERS, "--run", run, "--precision", precision, "--log.no-tensorboard"]
    if not tiny:
        return [*options, "--device", "cuda", "--max-steps", STEPS, "--log.every", EVERY]
    options += ["--device", "cpu", "--max-steps", TINY["steps"], "--log.every", TINY["every"]]
    options += ["--batch-size", TINY["batch"], "--view.size", 32, "--method.dim", 32]
    return [*options, "--backbone.name", "timm:test_vit"]


def rates(lines: Sequence[dict[str, Any]], warm: int) -> list[float]:
    """Pairs per second of the lines of metrics.jsonl, without the first `warm`.

    Raises RunError for too few lines and for a loss that is no number.
    """
    if len(lines) <= warm:
        raise RunError(f"training logged {len(lines)} lines, more than {warm} are needed; look at its log above")
    wrong = [line["step"] for line in lines if not is_number(line.get("loss_ssl"))]
    if wrong:
        raise RunError(f"the loss is no finite number at step {wrong[0]}")
    return [float(line["pairs_per_s"]) for line in lines[warm:]]


def trained(photos: Path, folder: Path, precision: str, *, tiny: bool) -> tuple[Row, dict[str, Any]]:
    """Trains once; returns the rates, and the data wait and memory."""
    run = folder / precision
    words = [sys.executable, *map(str, command(photos, run, precision, tiny=tiny))]
    done = subprocess.run(words, stdout=sys.stderr, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    if done.returncode:
        raise RunError(f"training in {precision} ended with status {done.returncode}")
    lines = read_lines(run / "metrics.jsonl")
    warm = TINY["warm"] if tiny else WARM
    row = Row(f"fastaugself, {precision}", rates(lines, warm))
    kept = {"data_wait": statistics.median(line["data_wait"] for line in lines[warm:])}
    return row, kept | {name: lines[-1][name] for name in ("memory_gib", "memory_reserved_gib") if name in lines[-1]}


def measure(photos: Path | None, out: Path, precisions: Sequence[str], device: torch.device) -> None:
    """Trains in each precision and writes the record after each."""
    tiny = device.type == "cpu"
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    details: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        described: dict[str, Any] = {"source": photos.name if photos else None}
        if photos is None:
            count, batch = (TINY["photos"], TINY["batch"]) if tiny else (IMAGENETTE, BATCH)
            files, described = write_beton(None, Path(folder), count, batch, ("jpeg",))
            photos = files["jpeg"]
        config = {
            "method": "BarlowTwins",
            "batch": TINY["batch"] if tiny else BATCH,
            "workers": WORKERS,
            "photos": described,
            "published": {"source": SOURCE, "samples_per_s": PUBLISHED},
        }
        for precision in precisions:
            try:
                row, details[row.name] = trained(photos, Path(folder), precision, tiny=tiny)
            except RunError as error:
                left_out.append(LeftOut(f"fastaugself, {precision}", str(error)))
                continue
            rows.append(row)
            found = record(
                rows,
                unit="samples_per_s",
                config=config,
                ratios={} if tiny else against_published(rows),
                device=device,
                left_out=left_out,
                details=details,
            )
            write_json(out, found)
    for row in rows:
        print(f"{row.name}: {row.rate:,.1f} pairs/s, {min(row.rounds):,.1f} to {max(row.rounds):,.1f}")
    for missing in left_out:
        print(f"{missing.name}: left out, {missing.reason}")
    if not rows:
        raise RunError(f"no precision could be trained: {left_out[0].reason}")


def against_published(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Our rates divided by each published one: median, lowest and highest."""
    return {
        f"{row.name} / {name}": median_and_range([rate / published for rate in row.rounds])
        for row in rows
        for name, published in PUBLISHED.items()
    }


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file for the record")
    parser.add_argument("--photos", type=Path, help="a .beton file (default: photos like Imagenette's are written)")
    parser.add_argument("--precision", nargs="+", choices=("fp16", "bf16", "fp32"), default=["fp16", "bf16"])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 1 failed, 2 wrong use."""
    options = make_parser().parse_args(arguments)

    def run() -> int:
        if options.photos is not None and not options.photos.is_file():
            raise UsageError(f"--photos {options.photos} does not exist; leave it out, or pass a .beton file")
        if options.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("torch finds no CUDA device; pass --device cpu for a test with a tiny model")
        device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
        measure(options.photos, options.json.absolute(), options.precision, device)
        return 0

    return run_command(run, less_memory="close other programs")


if __name__ == "__main__":
    sys.exit(main())
