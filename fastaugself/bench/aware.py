"""What each objective costs: a training step with it against the same step without it, views included.

Steps with and without take turns on the same photos. Objectives have their published options; E-SSL's small views have
96/224 of the size of the views. Objectives that need a ViT are compared with a base of their own.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..aware import AWARE, CONDITIONS, AwareConfig, ConditionalPredictor
from ..aware.augself import AugSelf
from ..aware.cassle import CASSLE
from ..aware.learner import Learner
from ..config.schema import Pretrain
from ..errors import UsageError
from ..models.build import Backbone
from ..runs.build import build_learner
from ..training.batch import make_batch
from .harness import Contestant, LeftOut, attempt, check_outputs, measure, median_and_range, record, write_json
from .setup import FlatSetup, noise_batch, settings, train_step

OFF = AugSelf(crop=0.0, color=0.0)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row: the configuration, and the name of the row that it is compared with."""

    name: str
    config: Pretrain
    base: str


def aware_benchmark(
    setup: FlatSetup,
    objectives: tuple[str, ...] = (),
    json: Path | None = None,
    rounds: int = 7,
    seconds: float = 2.0,
) -> None:
    """Time of a training step with each augmentation-aware method, divided by that of the base method alone.

    Args:
        setup: Method, model, batch size and device.
        objectives: Names of the objectives (cassle and predictor included); default: all.
        json: Write the result to this file.
        rounds: Number of rounds; in each, every step runs in turn.
        seconds: Seconds per step and round.
    """
    check_outputs(json)
    known = (*AWARE, *CONDITIONS)
    unknown = sorted(set(objectives) - set(known))
    if unknown:
        raise UsageError(f"unknown objective {unknown[0]}; pass --objectives with some of {', '.join(known)}")
    where = setup.where
    made = entries(setup.config(), objectives or known)
    left_out = [entry for entry in made if isinstance(entry, LeftOut)]
    listed = [entry for entry in made if isinstance(entry, Entry)]
    contestants, parameters = [], {}
    for entry in listed:
        call = attempt(entry.name, lambda entry=entry: step_of(entry.config, where, setup.dtype))  # type: ignore[misc]
        if isinstance(call, LeftOut):
            left_out.append(call)
            continue
        contestants.append(Contestant(entry.name, call, entry.config.batch_size))
        parameters[entry.name] = heads(build_learner(entry.config))
    rows, failed = measure(contestants, device=where, rounds=rounds, seconds=seconds)
    rates = {row.name: row.rounds for row in rows}
    costs = {
        entry.name: median_and_range([a / b for a, b in zip(rates[entry.base], rates[entry.name], strict=True)])
        for entry in listed
        if entry.name != entry.base and entry.name in rates and entry.base in rates
    }
    show(costs, parameters)
    for missing in (*left_out, *failed):
        Console().print(f"{missing.name}: left out, {missing.reason}", markup=False)
    if json is not None:
        values = record(
            rows,
            unit="samples_per_s",
            config=settings(setup.config(), rounds, seconds),
            ratios=costs,
            device=where,
            left_out=(*left_out, *failed),
            details={name: {"parameters": count} for name, count in parameters.items()},
        )
        write_json(json, values)


def entries(config: Pretrain, objectives: tuple[str, ...]) -> list[Entry | LeftOut]:
    """The base, then one row per objective; a base with a ViT before the first objective that needs one."""
    base = dataclasses.replace(config, augself=OFF)
    found: list[Entry | LeftOut] = [Entry("base", base, "base")]
    for name in objectives:
        entry = attempt(name, lambda name=name: Entry(name, with_objective(base, name), "base"))  # type: ignore[misc]
        if isinstance(entry, LeftOut):  # perhaps it needs a ViT
            size = config.view.size // 8 * 8
            vit = dataclasses.replace(
                base,
                view=dataclasses.replace(base.view, size=size),
                backbone=Backbone(name="timm:vit_small_patch16_224" if size % 16 == 0 else "timm:vit_small_patch8_224"),
            )
            second = attempt(name, lambda vit=vit, name=name: Entry(name, with_objective(vit, name), "base, ViT-S"))  # type: ignore[misc]
            if isinstance(second, Entry):
                found.append(Entry("base, ViT-S", vit, "base, ViT-S"))
                entry = second
        found.append(entry)
    return found


def with_objective(base: Pretrain, name: str) -> Pretrain:
    """The configuration with one objective, with its published options."""
    if name == "cassle":
        return dataclasses.replace(base, cassle=CASSLE(conditioning="concat"))
    if name == "predictor":
        return dataclasses.replace(base, predictor=ConditionalPredictor(conditioning="concat"))
    if name == "augself":
        return dataclasses.replace(base, augself=AugSelf())
    options: Any = AWARE[name]()
    if name == "essl":
        options = dataclasses.replace(
            options, view=dataclasses.replace(options.view, size=max(8, round(base.view.size * 96 / 224)))
        )
    chosen: AwareConfig = options
    return dataclasses.replace(base, aware=(chosen,))


def step_of(config: Pretrain, device: torch.device, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """A call that makes the views of a batch and one training step on them."""
    batch = noise_batch(config, device)
    step = train_step(config, device, dtype=dtype, compile=device.type == "cuda")

    def call() -> torch.Tensor:
        views = make_batch(config, batch, 0, dtype).views
        return step(views, global_step=0, progress=0.0).loss.detach()

    return call


def heads(learner: Learner) -> int:
    """Number of trained parameters of the objectives."""
    return sum(p.numel() for p in learner.objectives.parameters() if p.requires_grad)


def show(costs: dict[str, dict[str, float]], parameters: dict[str, int]) -> None:
    table = Table("objective", "time of a step / base", "range", "parameters of its own")
    for name, cost in costs.items():
        spread = f"{cost['min']:.2f} to {cost['max']:.2f}"
        table.add_row(name, f"{cost['median']:.2f}", spread, f"{parameters[name] / 1e6:.2f} M")
    Console().print(table)
