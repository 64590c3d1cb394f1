"""Training steps per second, from the style of research code to this project's default, one optimisation at a time.

All rungs of this ladder make steps on the same views with the same networks, in turn. Before the timing, the losses of
the rungs that compute the same are compared.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from ..aware.augself import AugSelf
from ..aware.cassle import CASSLE
from ..config.schema import Pretrain
from ..data.ragged import RaggedBatch
from ..errors import RunError
from ..methods import MoCo
from ..runs.build import build_learner
from .breakdown import NOT_HERE, bound, breakdown, in_words
from .harness import Contestant, Row, check_outputs, measure, ratios, record, write_json
from .plain import PlainMoCoStep
from .setup import LR, FlatSetup, inputs, noise_batch, settings, train_step


def step_benchmark(
    setup: FlatSetup,
    json: Path | None = None,
    rounds: int = 7,
    seconds: float = 1.0,
    compile: Literal["auto", "on", "off"] = "auto",
    everything: bool = False,
    host: bool = False,
    processes: int = 8,
) -> None:
    """Pairs of views per second of a training step, rung by rung, with and without AugSelf and CASSLE.

    Args:
        setup: Method, model, batch size and device.
        json: Write the result to this file.
        rounds: Number of rounds; in each, every rung runs once.
        seconds: Seconds per rung and round.
        compile: Include rungs with torch.compile; auto = on CUDA only.
        everything: On CUDA, also measure fp16, CUDA graphs and CASSLE, each with its own compilation.
        host: Measure the host time and count the collectives of a step of every method instead, without a GPU.
        processes: With --host, number of processes besides one.
    """
    if host:
        from .host import host_benchmark

        backbone = "resnet50" if setup.backbone == "auto" else setup.backbone
        return host_benchmark(json, rounds, backbone, processes, compile=compile == "on")
    check_outputs(json)
    where, config = setup.where, setup.config()
    cuda = where.type == "cuda"
    batch = noise_batch(config, where)
    compiled = compile == "on" or (compile == "auto" and cuda)
    rungs = ladder(config, batch, where, compiled=compiled, everything=everything or not compiled)
    check([rung for rung in rungs if rung.exact])
    contestants = [Contestant(rung.name, rung.call, config.batch_size) for rung in rungs]
    rows, left_out = measure(contestants, device=where, rounds=rounds, seconds=seconds)
    for missing in left_out:
        Console().print(f"{missing.name}: left out, {missing.reason}", markup=False)
    default = next((row for row in rows if row.name == "default"), None)
    compared = ratios(rows, "default") if default else {}
    values = record(
        rows,
        unit="samples_per_s",
        config=settings(config, rounds, seconds),
        ratios=compared,
        device=where,
        left_out=left_out,
    ) | {"breakdown": {}, "bound": None}
    if json is not None:
        write_json(json, values)  # keep the rates if the breakdown fails
    if default is None:
        raise RunError(f"the default step failed: {left_out[0].reason}")
    repeats = 3 * rounds if cuda else rounds
    parts = {"eager": breakdown(config, batch, where, setup.dtype, repeats=repeats)}
    if compiled:
        parts["compiled"] = breakdown(config, batch, where, setup.dtype, repeats=repeats, compiled=True)
    limit = bound(config, where) if cuda else None
    show(rows, compared, parts, limit)
    if json is not None:
        values["breakdown"] = parts
        values["bound"] = limit and {**limit, "share": default.rate / limit["samples_per_s"]}
        write_json(json, values)


@dataclasses.dataclass(frozen=True)
class Rung:
    """name: of its row. call: makes a step and returns its loss. exact: whether its losses equal the first rung's."""

    name: str
    call: Callable[[], torch.Tensor]
    exact: bool = False


def ladder(
    config: Pretrain, batch: RaggedBatch, device: torch.device, *, compiled: bool, everything: bool = True
) -> list[Rung]:
    """The rungs from the slowest to the default, then the default without AugSelf and with CASSLE."""
    cuda = device.type == "cuda"
    rungs = []
    if isinstance(config.method, MoCo):
        rungs.append(Rung("loops", _plain(config, batch, device, loops=True), exact=True))
        rungs.append(Rung("+lists of tensors, no waits", _plain(config, batch, device, loops=False), exact=True))
    eager: dict[str, Any] = {"channels_last": False, "dtype": torch.float32, "compile": False, "batched_views": False}
    switches: list[tuple[str, dict[str, Any]]] = [
        ("+loss without logits", {}),
        ("+channels-last", {"channels_last": True}),
    ]
    if cuda:
        switches += [("+fp16", {"dtype": torch.float16}), ("+bf16", {"dtype": torch.bfloat16})]
    if compiled:
        switches += [("+compile", {"compile": True, "batched_views": True})]
    options = eager
    for name, change in switches:
        options = {**options, **change}
        exact = options["dtype"] == torch.float32
        rungs.append(Rung(name, _trainer_step(config, batch, device, **options), exact=exact))
    last = rungs.pop()
    rungs.append(dataclasses.replace(last, name="default"))
    if cuda and compiled and everything:
        rungs.append(Rung("default, fp16", _trainer_step(config, batch, device, **{**options, "dtype": torch.float16})))
        rungs.append(Rung("default, CUDA graphs", _trainer_step(config, batch, device, **options, graphs=True)))
    if not isinstance(config.method, MoCo):
        other_views = {**options, "batched_views": not options["batched_views"]}
        name = "default, views in one pass" if other_views["batched_views"] else "default, views one by one"
        rungs.append(Rung(name, _trainer_step(config, batch, device, **other_views)))
    without = dataclasses.replace(config, augself=AugSelf(crop=0.0, color=0.0))
    rungs.append(Rung("default, no AugSelf", _trainer_step(without, batch, device, **options)))
    if not everything:
        return rungs
    conditioned = dataclasses.replace(config, cassle=CASSLE(conditioning="concat"))
    rungs.append(Rung("default, CASSLE", _trainer_step(conditioned, batch, device, **options)))
    return rungs


def _plain(config: Pretrain, batch: RaggedBatch, device: torch.device, *, loops: bool) -> Callable[[], torch.Tensor]:
    step = PlainMoCoStep(build_learner(config).to(device), LR, loops=loops)
    views = inputs(config, batch, torch.float32, channels_last=False)
    return lambda: step(views)


def _trainer_step(
    config: Pretrain,
    batch: RaggedBatch,
    device: torch.device,
    *,
    channels_last: bool,
    dtype: torch.dtype,
    compile: bool,
    batched_views: bool,
    graphs: bool = False,
) -> Callable[[], torch.Tensor]:
    step = train_step(
        config,
        device,
        channels_last=channels_last,
        dtype=dtype,
        compile=compile,
        batched_views=batched_views,
        graphs=graphs,
    )
    views = inputs(config, batch, dtype, channels_last=channels_last)
    return lambda: step(views, global_step=0, progress=0.0).loss.detach()


def check(rungs: list[Rung]) -> None:
    """Raises RunError if the losses of the first steps differ between rungs that should compute the same."""
    # TF32 alone makes convolutions differ by half a percent.
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        _compare(rungs)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


def _compare(rungs: list[Rung]) -> None:
    first = [float(rungs[0].call()) for _ in range(2)]
    for rung in rungs[1:]:
        losses = [float(rung.call()) for _ in range(2)]
        if any(abs(a - b) > 1e-2 for a, b in zip(first, losses, strict=True)):
            raise RunError(f"{rung.name} computes something else than {rungs[0].name}: losses {losses}, not {first}")


def show(
    rows: list[Row],
    compared: dict[str, dict[str, float]],
    parts: dict[str, dict[str, float]],
    limit: dict[str, float] | None,
) -> None:
    """Prints the rates of the rungs and the breakdown of a step."""
    console, table = Console(), Table("", "pairs/s", "speed-up of the default", "lowest", "highest")
    for row in rows:
        ratio = compared.get(row.name)
        cells = [f"{ratio[key]:.2f}x" for key in ("median", "min", "max")] if ratio else ["", "", ""]
        table.add_row(row.name, f"{row.rate:,.1f}", *cells)
    console.print(table)
    for name, seconds in parts.items():
        console.print(in_words(name, seconds), markup=False)
    console.print(NOT_HERE, markup=False)
    if limit is not None:
        rate = next(row.rate for row in rows if row.name == "default")
        console.print(f"{rate / limit['samples_per_s']:.0%} of the bound of {limit['samples_per_s']:,.0f} pairs/s")
