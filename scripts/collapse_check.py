"""Trains every method for a few hundred steps on real photos, and checks its features for collapse.

    python scripts/collapse_check.py TRAIN VAL --json results/<machine>/collapse.json

TRAIN, VAL: folders of photos or .beton files, as for --data.train and --data.val. The configurations are those of
recipes/study.py with a ResNet-18 of half the width at 48 px and a batch size of 64, so that eight methods take minutes
on a CPU. It prints the method's loss in the first and last tenth of the steps, the effective rank of the features
(RankMe, Garrido 2023, arXiv 2210.02885; 1 = collapsed) and k-NN accuracy before and after. The exit code is 1 if a
method's rank falls below half of that of random weights. A few hundred steps show that the losses work, not how well.
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
    parser.add_argument("--parts", default="-augself", help="'', -augself, -cassle or -augself-cassle")
    parser.add_argument("--methods", nargs="*", help="default: all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    study: dict[str, Any] = runpy.run_path(str(ROOT / "recipes" / "study.py"))
    data = Data(train=ensure_beton(options.train), val=ensure_beton(options.val), source="native")
    rows = []
    print(("{:>14} " * len(HEADINGS)).format(*HEADINGS))
    for name in options.methods or study["METHODS"]:
        with tempfile.TemporaryDirectory() as folder:
            config = small(study["PRESETS"].get(name + options.parts, study["PRESETS"][name]), data, Path(folder))
            rows.append({"name": name, **check(replace(config, max_steps=options.steps))})
        values = list(rows[-1].values())[: len(HEADINGS)]
        print(("{:>14} " + "{:>14.4g} " * (len(HEADINGS) - 1)).format(*values), flush=True)
        if options.json:
            settings = {"steps": options.steps, "parts": options.parts, "train": options.train.name}
            record = {"environment": environment(torch.device("cpu")), "config": settings, "rows": rows}
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(record, indent=2) + "\n")
    collapsed = [row["name"] for row in rows if row["rankme_after"] < row["rankme_before"] / 2]
    if collapsed:
        sys.exit(f"collapsed: {', '.join(collapsed)}")


def small(preset: Callable[[], Pretrain], data: Data, run: Path) -> Pretrain:
    """The preset with the model, view and batch size of this check."""
    config = preset()
    return replace(
        config,
        data=data,
        view=replace(config.view, size=48),
        augment=Augment(blur_kernel=5),
        backbone=replace(config.backbone, width=32),
        optim=replace(config.optim, warmup_epochs=0.5),
        log=Log(every=1, tensorboard=False, knn_epochs=0),
        run=run,
        epochs=4,
        batch_size=64,
    )


def check(config: Pretrain) -> dict[str, float]:
    """Trains in `config.run`; returns the loss in the first and last tenth, and rank and accuracy before and after."""
    trainer = Trainer(config, World.single())
    try:
        trainer.fit()
    finally:
        trainer.close()
    metrics, evaluations = (
        [json.loads(line) for line in (config.run / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "evaluations.jsonl")
    )
    losses = [line["loss_ssl"] for line in metrics]
    tenth = max(1, len(losses) // 10)
    before, after = evaluations[0], evaluations[-1]
    return {
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "rankme_before": before["rankme"],
        "rankme_after": after["rankme"],
        "knn_before": before["knn"],
        "knn_after": after["knn"],
        **{name + "_last": metrics[-1][name] for name in metrics[-1] if name in ("loss_crop", "loss_color")},
        "pairs_per_s": metrics[-1]["pairs_per_s"],
    }


if __name__ == "__main__":
    main()
