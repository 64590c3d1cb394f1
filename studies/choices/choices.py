"""What do Fast-MoCo, a schedule of sizes and local crops bring? Each on and off, at equal pairs and at equal time.

    python studies/choices/choices.py PHOTOS --json results/<machine>/choices.json

PHOTOS: a folder with train/ and val/ (class folders). MoCo v3 on a ResNet-18 of half the width at 32 px, 8 epochs at a
batch of 256, three seeds; the setting was fixed before the first result. Every choice is trained on as many pairs as
the baseline, and for as much time: its epochs are the baseline's divided by its cost, the processor time of a step on
one thread relative to the baseline's, which is measured first in interleaved rounds. k-NN and linear (ridge) accuracy
on the validation photos are those of the run's own check at its end. Finished runs are kept in --runs and are not
repeated; `--part 1/2` and `--part 2/2` divide them among two commands.
"""

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastaugself import AugSelf, Backbone, Data, Log, MoCoV3, Optim, Pretrain, ViewPolicy, pretrain
from fastaugself.data.inputs.convert import ensure_beton
from fastaugself.distributed import World
from fastaugself.environment import environment
from fastaugself.training.trainer import Trainer

SIZE, LOCAL = 32, 16
METHOD = MoCoV3(hidden=512, dim=128, momentum=0.99)
CHOICES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "fast-moco": {"method": replace(METHOD, split=2)},
    "sizes": {"size_schedule": ("0:16", "0.5:24", "0.9:32")},
    "local crops": {"num_local_crops": 4},
}
WARM, TIMED = 2, 8  # rounds of one step each, before the timing and during it


def setting(photos: Path, run: Path, *, epochs: int, seed: int, **changes: Any) -> Pretrain:
    """The configuration of a run. changes: those of a choice."""
    base = Pretrain(
        data=Data(train=ensure_beton(photos / "train"), val=ensure_beton(photos / "val"), source="native"),
        view=ViewPolicy.moco_v2(SIZE),
        local_crop=replace(ViewPolicy.moco_v2(LOCAL), scale=(0.05, 0.2)),
        backbone=Backbone(name="resnet18", width=32, zero_init_residual=True),
        method=METHOD,
        augself=AugSelf(crop=0, color=0),
        optim=Optim(lr=0.06, momentum=0.9, weight_decay=5e-4, warmup_epochs=1),
        log=Log(every=37, tensorboard=False, knn_epochs=0),
        run=run,
        epochs=epochs,
        batch_size=256,
        seed=seed,
        device="cpu",
    )
    return replace(base, **changes)


def costs(photos: Path, folder: Path) -> dict[str, Any]:
    """Processor seconds of a step of every choice on one thread, in interleaved rounds, and relative to the baseline.

    A schedule of sizes costs the mean of its sizes, by their shares of the run.
    """
    schedule = setting(photos, folder, epochs=1, seed=0, **CHOICES["sizes"]).sizes.shares()
    steps: dict[str, Generator[float]] = {
        name: _steps(setting(photos, folder / name, epochs=10, seed=0, **changes), SIZE)
        for name, changes in CHOICES.items()
        if name != "sizes"
    }
    for size in schedule:
        if size != SIZE:
            steps[f"{size} px"] = _steps(setting(photos, folder / str(size), epochs=10, seed=0), size)
    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM + TIMED):
        for name, step in steps.items():
            rounds[name].append(next(step))
    rounds = {name: values[WARM:] for name, values in rounds.items()}
    for step in steps.values():
        step.close()
    ratios = {name: [a / b for a, b in zip(values, rounds["baseline"], strict=True)] for name, values in rounds.items()}
    relative = {name: statistics.median(values) for name, values in ratios.items()}
    shares = {size: relative.get(f"{size} px", 1.0) * share for size, share in schedule.items()}
    return {"seconds": rounds, "cost": {**relative, "sizes": sum(shares.values())}}


def _steps(config: Pretrain, size: int) -> Generator[float]:
    """Processor seconds of one training step after another; the decoding of its photos counts too."""
    trainer = Trainer(config, World.single())
    try:
        with closing(trainer.batches(size)) as batches:
            while True:
                began = time.process_time()
                trainer.train_step(next(batches))
                yield time.process_time() - began
    finally:
        trainer.close()


def main() -> None:
    """Measures the costs, trains every choice, and writes the record after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/choices"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="1/1", help="which of how many shares of the runs to train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = options.runs / "costs.json"
    if not measured.exists():
        write(measured, costs(options.photos, options.runs / "costs"))
    found = json.loads(measured.read_text())
    part, parts = map(int, options.part.split("/"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    jobs = [
        (seed, name, budget)
        for seed in range(options.seeds)
        for name in CHOICES
        for budget in (("pairs",) if name == "baseline" else ("pairs", "time"))
    ]
    for seed, name, budget in jobs[part - 1 :: parts]:
        folder = options.runs / f"{name}-{budget}-{seed}".replace(" ", "-")
        epochs = max(1, round(options.epochs / (found["cost"][name] if budget == "time" else 1.0)))
        if not (folder / "row.json").exists():
            run = pretrain(setting(options.photos, folder, epochs=epochs, seed=seed, **CHOICES[name]))
            last = run.evaluations()[-1]
            row = {"choice": name, "budget": budget, "seed": seed, "epochs": epochs}
            write(folder / "row.json", row | {metric: last[metric] for metric in ("knn", "linear", "rankme")})
        config = {"epochs": options.epochs, "photos": options.photos.name, "size": SIZE, "threads": 1}
        rows = [json.loads(path.read_text()) for path in sorted(options.runs.glob("*/row.json"))]
        record = {"date": datetime.date.today().isoformat(), "environment": environment(torch.device("cpu"))}
        write(options.json, record | {"config": config, "costs": found, "rows": rows})
        print(rows[-1], flush=True)


def write(path: Path, values: dict[str, Any]) -> None:
    """Writes values as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
