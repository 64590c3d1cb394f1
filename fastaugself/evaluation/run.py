"""The main loop of an evaluation on features: extract, run the protocol on models and their fusions, write.

Shape suffixes: N samples, D features.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..files import check_outputs
from .fusion import Fusion, Representation, fuse
from .protocols import Protocol
from .results import Row, number, table

if TYPE_CHECKING:
    from .options import FeatureOptions

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class Result:
    """The results of a protocol.

    rows: one per model or fusion and score. features: of each row, [N, D] by split. adds: by model (and metric, if
    there are several), the score of the fusion of all models minus that of the fusion without it.
    """

    rows: list[Row]
    features: list[dict[str, Tensor]]
    adds: dict[str, float]


def evaluate(command: "FeatureOptions") -> list[Row]:
    """Runs a command of `fastaugself eval`: prints its scores, writes them to --out, and returns them."""
    began = time.perf_counter()
    check_outputs(command.out / "results.csv")
    encoders, dataset, extract = command.encoders(), command.read_data(), command.extractor()
    for note in (dataset.how, *dataset.notes):
        if note:
            log.info("%s: %s", dataset.name, note)
    protocol = command.protocol(dataset, extract, encoders)
    parts = [command.parts(dataset, extract, encoder) for encoder in encoders]
    result = run_protocol(protocol, parts, None if command.fuse == "none" else command.fuse)
    sizes = {name: len(dataset.splits[name]) for name in command.splits(dataset)}
    details = {"splits": dataset.how, "sizes": sizes}
    path = command.write(dataset, encoders, result.rows, adds=result.adds, details=details, began=began)
    print(table(result.rows))
    for name, value in result.adds.items():
        print(f"{name} adds {value:+.4f} to the others")
    command.finish(dataset, result.rows, result.features, path.with_suffix(".html"))
    print(path)
    return result.rows


def run_protocol(protocol: Protocol, parts: Sequence[dict[str, Representation]], how: Fusion | None) -> Result:
    """Runs a protocol on each model alone, on all models fused, and (with three or more) on all but one fused.

    parts: the features of each model, by split. how: the kind of fusion; None: each model alone only.
    Raises UsageError, before anything is fitted, if the features cannot be fused.
    """
    count = len(parts)
    subsets: list[tuple[int, ...]] = [(i,) for i in range(count)]
    everything = tuple(range(count))
    if how and count > 1:
        without = [tuple(j for j in everything if j != i) for i in everything]
        subsets += [*(without if count > 2 else []), everything]
        for split in parts[0]:
            fuse([part[split] for part in parts], how)
    rows: list[Row] = []
    features: list[dict[str, Tensor]] = []
    scores: dict[tuple[int, ...], dict[str, float]] = {}
    for subset in subsets:
        fused = {split: fuse([parts[i][split] for i in subset], how or "concat") for split in parts[0]}
        x = {split: part.x_ND for split, part in fused.items()}
        outcome = protocol(x)
        names = tuple(_name(parts[i]) for i in subset)
        fusion = (how or "") if len(subset) > 1 else ""
        for part in (outcome, *outcome.others):
            row = Row(names, fusion, part.metric, part.score, part.samples, part.details)
            rows.append(row)
            features.append(x)
            scores.setdefault(subset, {})[part.metric] = part.score.value
            done = f"{len(scores)} of {len(subsets)}"
            log.info("%s: %s %s %s", done, row.label, row.metric, number(part.score.value))
    adds = {}
    if how and count > 1:
        for i in everything:
            rest = tuple(j for j in everything if j != i)
            for metric, value in scores[everything].items():
                name = _name(parts[i]) + (f" ({metric})" if len(scores[everything]) > 1 else "")
                adds[name] = value - scores[rest][metric]
    return Result(rows, features, adds)


def _name(part: dict[str, Representation]) -> str:
    """The model's name."""
    return next(iter(part.values())).name
