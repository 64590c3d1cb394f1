"""The section of a report on the checks during training: their curves, those of `--data.val` first."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config.schema import Photos, Pretrain
from ..data.dataset import Dataset
from ..errors import RunError, UsageError
from ..html.charts import Level
from .text import check_title

NOTES = {
    "knn": "Accuracy of a 20-nearest-neighbour vote of training photos on the validation photos.",
    "linear": "Validation accuracy of a ridge regression classifier on the frozen features.",
    "rankme": "RankMe (Garrido 2023): effective dimension of the features; 1 means collapse.",
    "lidar": "LiDAR (Thilak 2023): effective dimension of what tells photos apart in spite of their (ten) views.",
    "alpha": "alpha-ReQ (Agrawal 2022): decay of the covariance's eigenvalues; near 1 is said to transfer best.",
    "r2": "R² of a linear regression from the frozen features; predicting the mean gives 0.",
}
AXES = {
    "knn": {"low": 0.0, "high": 1.0},
    "linear": {"low": 0.0, "high": 1.0},
    "rankme": {"low": 1.0},
    "lidar": {"low": 1.0},
}
Chart = Callable[..., str]  # Report._chart


def checks_html(evaluations: Sequence[Mapping[str, Any]], config: Pretrain, chart: Chart, worse: str) -> str:
    """The section. chart: draws one score. worse: the warning about scores below their start."""
    if not evaluations:
        return (
            "<h2>Evaluations during training</h2>\n<p>The features were not evaluated: that needs validation "
            "photos (<code>--data.val</code>).</p>"
        )
    names = {name for record in evaluations for name in record}
    groups = {prefix: sorted(n for n in names if n.rpartition("/")[0] == prefix) for prefix in _prefixes(names)}
    parts = []
    for prefix, inside in groups.items():
        level = chance_level(config, prefix)
        charts = [_figure(name, chart, level) for name in _ordered(inside)]
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return (
        '<h2>Evaluations during training</h2>\n<p class="lead">On features of the central square crop of each photo, '
        f"without augmentation; LiDAR on training views.</p>\n{worse}" + "\n".join(parts)
    )


def _prefixes(names: set[str]) -> list[str]:
    """The names of the checks, that on `--data.val` ("") first."""
    return sorted({name.rpartition("/")[0] for name in names})


def _ordered(names: Sequence[str]) -> list[str]:
    """The scores with a chart, in the order of `NOTES`."""
    kinds = list(NOTES)
    found = [(kinds.index(kind(name)), name) for name in names if kind(name) in NOTES]
    return [name for _, name in sorted(found)]


def kind(name: str) -> str:
    """The kind of a score, whatever check it is of: a key of `NOTES`, or its own name."""
    score = name.rpartition("/")[2]
    return "r2" if score.startswith("r2_") else score


def _figure(name: str, chart: Chart, level: list[Level]) -> str:
    of = kind(name)
    levels = level if of in ("knn", "linear") else [Level(0.0, "predicting the mean")] if of == "r2" else []
    return chart(name, check_title(name), NOTES[of], levels, **({"high": 1.0} if of == "r2" else AXES.get(of, {})))


def chance_level(config: Pretrain, check: str = "") -> list[Level]:
    """A line at the accuracy of always predicting the most frequent class; none if it is not known."""
    share = chance(config, check)
    return [] if share is None else [Level(share, f"largest class {share:.1%}".replace(".0%", "%"))]


def chance(config: Pretrain, check: str = "") -> float | None:
    """The share of the most frequent class among the validation photos of a check, "" for `--data.val`.

    None for checks of an earlier part of the run, which was resumed without them, for lost photos and without labels.
    """
    photos: Photos | Path | None = config.data.val
    if check:
        found = next((p for p in config.log.check_photos if p.name == check), None)
        photos = None if found is None else found.val or found.train
    if photos is None:
        return None
    try:
        data = Dataset(photos)
    except (UsageError, RunError):
        return None
    with data:
        labels_N = data.labels_N[data.labels_N >= 0]
        return float(np.bincount(labels_N).max() / len(data)) if len(labels_N) else None
