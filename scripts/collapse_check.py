"""Trains every method for a few hundred steps on real photos, and checks its features for collapse.

    python scripts/collapse_check.py TRAIN VAL --json results/<machine>/collapse.json
    python scripts/collapse_check.py TRAIN VAL --presets simclr simclr-essl ... --json results/<machine>/aware.json

TRAIN, VAL: folders of photos or .beton files, as for --data.train and --data.val. The configurations are those of
recipes/study.py with a ResNet-18 of half the width at 48 px (`--size`) and a batch size of 64, so that eight methods
take minutes on a CPU. It prints the loss in the first and last tenth of the steps, the effective rank of the features
(RankMe, Garrido 2023, arXiv 2210.02885; 1 = collapsed) and k-NN accuracy before and after. The record also has the
first and last tenth of each objective's losses and metrics, and the baselines of the losses. Rows are written one by
one; presets that the record already has are not trained again. The exit code is 1 if a method's rank falls below half
of that of random weights. A few hundred steps show that the losses work, not how well.
"""

import argparse
import json
import runpy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastaugself import Augment, Data, Log, Pretrain
from fastaugself.data.inputs.convert import ensure_beton
from fastaugself.distributed import World
from fastaugself.environment import environment
from fastaugself.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = ("method", "loss, first", "last", "RankMe, before", "after", "k-NN, before", "after")


def main() -> None:
    """Checks the methods, prints a table and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=48, help="of the views in pixels")
    parser.add_argument("--parts", default="-augself", help="'', -augself, -cassle or -augself-cassle")
    parser.add_argument("--methods", nargs="*", help="default: all")
    parser.add_argument("--presets", nargs="*", default=[], help="of recipes/study.py, instead of methods and parts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    study: dict[str, Any] = runpy.run_path(str(ROOT / "recipes" / "study.py"))
    data = Data(train=ensure_beton(options.train), val=ensure_beton(options.val), source="native")
    names = options.presets or [
        name + options.parts if name + options.parts in study["PRESETS"] else name
        for name in options.methods or study["METHODS"]
    ]
    settings = {"steps": options.steps, "size": options.size, "train": options.train.name}
    rows: list[dict[str, Any]] = []
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        rows = before["rows"] if before["config"] == settings else []
    print(("{:>14} " * len(HEADINGS)).format(*HEADINGS))
    for name in names:
        if any(row["name"] == name for row in rows):
            continue
        with tempfile.TemporaryDirectory() as folder:
            config = small(study["PRESETS"][name], data, Path(folder), options.size)
            rows.append({"name": name, **check(replace(config, max_steps=options.steps))})
        values = list(rows[-1].values())[: len(HEADINGS)]
        print(("{:>14} " + "{:>14.4g} " * (len(HEADINGS) - 1)).format(*values), flush=True)
        if options.json:
            record = {"environment": environment(torch.device("cpu")), "config": settings, "rows": rows}
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(record, indent=2) + "\n")
    collapsed = [row["name"] for row in rows if row["rankme_after"] < row["rankme_before"] / 2]
    if collapsed:
        sys.exit(f"collapsed: {', '.join(collapsed)}")


def small(preset: Callable[[], Pretrain], data: Data, run: Path, size: int) -> Pretrain:
    """The preset with the model, view and batch size of this check."""
    config = preset()
    return replace(
        config,
        data=data,
        view=replace(config.view, size=size),
        augment=Augment(blur_kernel=5),
        backbone=config.backbone if config.backbone.name.startswith("timm:") else replace(config.backbone, width=32),
        optim=replace(config.optim, warmup_epochs=0.5),
        log=Log(every=1, tensorboard=False, knn_epochs=0),
        run=run,
        epochs=4,
        batch_size=64,
    )


def check(config: Pretrain) -> dict[str, Any]:
    """Trains in `config.run`; returns losses and metrics of the first and last tenth, rank, accuracy and speed."""
    trainer = Trainer(config, World.single())
    try:
        trainer.fit()
    finally:
        trainer.close()
    metrics, evaluations = (
        [json.loads(line) for line in (config.run / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "evaluations.jsonl")
    )
    tenth = max(1, len(metrics) // 10)
    before, after = evaluations[0], evaluations[-1]
    main = "loss_ssl" if config.base_loss else "loss"
    own = tuple(f"loss_{name}" for options in config.objectives.values() for name in options.weights)
    own += tuple(name for name in metrics[-1] if name.split("_")[0] in config.objectives)
    baseline = json.loads((config.run / "environment.json").read_text())["baseline_losses"]

    def mean(name: str, lines: list[dict[str, float]]) -> float:
        return sum(line[name] for line in lines) / len(lines)

    return {
        "loss_first": mean(main, metrics[:tenth]),
        "loss_last": mean(main, metrics[-tenth:]),
        "rankme_before": before["rankme"],
        "rankme_after": after["rankme"],
        "knn_before": before["knn"],
        "knn_after": after["knn"],
        "objectives": {name: [mean(name, metrics[:tenth]), mean(name, metrics[-tenth:])] for name in own},
        "baseline": baseline,
        "pairs_per_s": metrics[-1]["pairs_per_s"],
    }


if __name__ == "__main__":
    main()
