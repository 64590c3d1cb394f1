"""Training steps per second: from research code's style, switch by switch, to this project's default.

All rungs take steps on the same views with the same networks, in turn in one run. Before the timing, the rungs that
compute the same are held to the same losses.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from fastaugself_kernels import Targets, ViewPolicy

from ..config import Augment, Pretrain
from ..data.canvas import Canvas
from ..errors import RunError
from ..methods import Byol, MoCo, SimClr, SimSiam
from ..methods.augself import AugSelf
from ..methods.base import Views
from ..methods.build import build_learner
from ..methods.cassle import Cassle
from ..methods.learner import Learner
from ..models.build import Backbone
from ..models.norm import set_group
from ..models.resnet import ResNet
from ..training.batch import make_batch
from ..training.optim import Optim, make_optimizer, set_learning_rate
from ..training.step import TrainStep
from .breakdown import bound, breakdown
from .harness import Contestant, Row, measure, ratios, record, write_json
from .plain import PlainMoCoStep

LR = 0.01
METHODS = {"moco": MoCo, "simsiam": SimSiam, "simclr": SimClr, "byol": Byol}
MethodName = Literal["moco", "simsiam", "simclr", "byol"]
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def step_benchmark(
    json: Path | None = None,
    method: MethodName = "moco",
    backbone: str = "auto",
    width: int = 64,
    size: int = 0,
    batch: int = 0,
    queue: int = 0,
    rounds: int = 7,
    seconds: float = 1.0,
    device: str = "auto",
    compile: Literal["auto", "on", "off"] = "auto",
    everything: bool = False,
) -> None:
    """Pairs of views per second of a training step, rung by rung, with AugSelf and CASSLE on and off.

    Args:
        json: File for the result.
        method: Method to train.
        backbone: ResNet; auto is resnet50 on CUDA and resnet18 on a CPU.
        width: Channels of its first stage.
        size: Side of the views in pixels; 0 is 224 on CUDA and 64 on a CPU.
        batch: Pairs in a step; 0 is 256 on CUDA and 16 on a CPU.
        queue: Keys in MoCo's queue; 0 is 65536 on CUDA and 4096 on a CPU.
        rounds: Rounds in which the rungs take turns.
        seconds: Seconds of each rung in a round.
        device: cpu, cuda, or auto for CUDA where there is one.
        compile: Rungs with torch.compile; auto has them on CUDA.
        everything: On CUDA also fp16, CUDA graphs and CASSLE at the default, each with a compilation of its own.
    """
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    cuda = where.type == "cuda"
    config = bench_config(
        method,
        backbone="resnet50" if backbone == "auto" and cuda else backbone.replace("auto", "resnet18"),
        width=width,
        size=size or (224 if cuda else 64),
        batch=batch or (256 if cuda else 16),
        queue=queue or (65_536 if cuda else 4096),
    )
    canvas = photos(config, where)
    compiled = compile == "on" or (compile == "auto" and cuda)
    rungs = ladder(config, canvas, where, compiled=compiled, everything=everything or not compiled)
    check([rung for rung in rungs if rung.exact])
    contestants = [Contestant(rung.name, rung.call, config.batch_size) for rung in rungs]
    rows, left_out = measure(contestants, device=where, rounds=rounds, seconds=seconds)
    for missing in left_out:
        Console().print(f"{missing.name}: left out, {missing.reason}", markup=False)
    default = next((row for row in rows if row.name == "default"), None)
    if default is None:
        raise RunError(f"the default step failed: {left_out[0].reason}")
    compared = ratios(rows, "default")
    parts = breakdown(config, canvas, where, DTYPES["bf16" if cuda else "fp32"], repeats=3 * rounds)
    limit = bound(config, where) if cuda else None
    show(rows, compared, parts, limit)
    if json is not None:
        values = record(
            rows,
            unit="samples_per_s",
            config=settings(config, rounds, seconds),
            ratios=compared,
            device=where,
            left_out=left_out,
        )
        values["breakdown"] = parts
        values["bound"] = limit and {**limit, "share": default.rate / limit["samples_per_s"]}
        write_json(json, values)


@dataclasses.dataclass(frozen=True)
class Rung:
    """name: of the row. call: makes a step and gives its loss. exact: whether it computes what the first rung does."""

    name: str
    call: Callable[[], torch.Tensor]
    exact: bool = False


def bench_config(method: MethodName, *, backbone: str, width: int, size: int, batch: int, queue: int) -> Pretrain:
    """The configuration whose step is measured."""
    options = METHODS[method](queue=queue // batch * batch) if method == "moco" else METHODS[method]()
    return Pretrain(
        view=ViewPolicy.moco_v2(size),
        augment=Augment(blur_kernel=23 if size > 96 else 9 if size > 32 else 5),
        backbone=Backbone(name=backbone, width=width, stem="imagenet" if size > 48 else "small"),
        method=options,
        augself=AugSelf(crop=0.5, color=0.5),
        optim=Optim(lr=LR * 256 / batch),
        batch_size=batch,
    )


def photos(config: Pretrain, device: torch.device, side: int = 0) -> Canvas:
    """A batch of noise as decoded photos of 375 x 500, or of `side` squared; smaller where views are."""
    height, width = (side, side) if side else (375, 500) if config.view.size >= 160 else (96, 128)
    B, random = config.batch_size, torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (B * height * width * 3,), dtype=torch.uint8, generator=random)
    offsets_B = torch.arange(B, dtype=torch.int64) * (height * width * 3)
    sizes_B2 = torch.tensor([[height, width]] * B, dtype=torch.int32)
    return Canvas(pixels, offsets_B, sizes_B2, torch.zeros(B, dtype=torch.int64), torch.arange(B)).to(device)


def ladder(
    config: Pretrain, canvas: Canvas, device: torch.device, *, compiled: bool, everything: bool = True
) -> list[Rung]:
    """The rungs, from the slowest style to the default, and what AugSelf and CASSLE add to that."""
    cuda = device.type == "cuda"
    rungs = []
    if isinstance(config.method, MoCo):
        rungs.append(Rung("loops", _plain(config, canvas, device, loops=True), exact=True))
        rungs.append(Rung("+lists of tensors, no waits", _plain(config, canvas, device, loops=False), exact=True))
    eager: dict[str, Any] = {"channels_last": False, "dtype": torch.float32, "compile": False, "joint": False}
    switches: list[tuple[str, dict[str, Any]]] = [
        ("+loss without logits", {}),
        ("+channels-last", {"channels_last": True}),
    ]
    if cuda:
        switches += [("+fp16", {"dtype": torch.float16}), ("+bf16", {"dtype": torch.bfloat16})]
    if compiled:
        switches += [("+compile", {"compile": True, "joint": True})]
    options = eager
    for name, change in switches:
        options = {**options, **change}
        exact = options["dtype"] == torch.float32
        rungs.append(Rung(name, _own(config, canvas, device, **options), exact=exact))
    last = rungs.pop()
    rungs.append(dataclasses.replace(last, name="default"))
    if cuda and compiled and everything:
        rungs.append(Rung("default, fp16", _own(config, canvas, device, **{**options, "dtype": torch.float16})))
        rungs.append(Rung("default, CUDA graphs", _own(config, canvas, device, **options, graphs=True)))
    if not isinstance(config.method, MoCo):
        turned = {**options, "joint": not options["joint"]}
        name = "default, views in one pass" if turned["joint"] else "default, views one by one"
        rungs.append(Rung(name, _own(config, canvas, device, **turned)))
    without = dataclasses.replace(config, augself=AugSelf(crop=0.0, color=0.0))
    rungs.append(Rung("default, no AugSelf", _own(without, canvas, device, **options)))
    if not everything:
        return rungs
    conditioned = dataclasses.replace(config, cassle=Cassle(inject="concat"))
    rungs.append(Rung("default, CASSLE", _own(conditioned, canvas, device, **options)))
    return rungs


def _plain(config: Pretrain, canvas: Canvas, device: torch.device, *, loops: bool) -> Callable[[], torch.Tensor]:
    step = PlainMoCoStep(build_learner(config).to(device), LR, loops=loops)
    views, targets = inputs(config, canvas, torch.float32, channels_last=False)
    return lambda: step(views, targets)


def _own(
    config: Pretrain,
    canvas: Canvas,
    device: torch.device,
    *,
    channels_last: bool,
    dtype: torch.dtype,
    compile: bool,
    joint: bool,
    graphs: bool = False,
) -> Callable[[], torch.Tensor]:
    step = train_step(
        config, device, channels_last=channels_last, dtype=dtype, compile=compile, joint=joint, graphs=graphs
    )
    views, targets = inputs(config, canvas, dtype, channels_last=channels_last)
    return lambda: step(views, targets, step=0, progress=0.0).loss.detach()


def train_step(
    config: Pretrain,
    device: torch.device,
    *,
    channels_last: bool = True,
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
    joint: bool = False,
    graphs: bool = False,
    processes: int = 1,
    prepare: Callable[[Learner], Any] | None = None,
) -> TrainStep:
    """The trainer's step on a new learner at a learning rate that does not blow up on noise. prepare: changes it."""
    learner: Learner = build_learner(config).to(device)
    if channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if prepare is not None:
        prepare(learner)
    for module in learner.modules():
        if isinstance(module, ResNet):
            module.joint = joint
            set_group(module, config.batch_size if joint else 0)
    optimizer = make_optimizer(learner, config.optim, constant_lr=learner.method.constant_lr)
    set_learning_rate(optimizer, LR, LR)
    return TrainStep(
        learner, optimizer, device=device, dtype=dtype, compile="on" if compile else "off", cuda_graphs=graphs,
        processes=processes,
    )  # fmt: skip


def inputs(
    config: Pretrain, canvas: Canvas, dtype: torch.dtype, *, channels_last: bool
) -> tuple[Views, tuple[Targets, Targets]]:
    """Views and targets of the batch; views in NCHW order without `channels_last`."""
    views, targets = make_batch(config, canvas, 0, dtype)
    return views if channels_last else views._replace(x_VBCHW=views.x_VBCHW.contiguous()), targets


def check(rungs: list[Rung]) -> None:
    """Raises RunError where rungs that should compute the same have other losses in their first steps."""
    first = [float(rungs[0].call()) for _ in range(2)]
    for rung in rungs[1:]:
        losses = [float(rung.call()) for _ in range(2)]
        if any(abs(a - b) > 1e-2 for a, b in zip(first, losses, strict=True)):
            raise RunError(f"{rung.name} computes something else than {rungs[0].name}: losses {losses}, not {first}")


def settings(config: Pretrain, rounds: int, seconds: float) -> dict[str, Any]:
    """What was measured, for the record."""
    return {
        "method": type(config.method).__name__, "backbone": config.backbone.name, "width": config.backbone.width,
        "size": config.view.size, "batch": config.batch_size, "queue": getattr(config.method, "queue", 0),
        "rounds": rounds, "seconds": seconds, "threads": torch.get_num_threads(),
    }  # fmt: skip


def show(
    rows: list[Row], compared: dict[str, dict[str, float]], parts: dict[str, float], limit: dict[str, float] | None
) -> None:
    """Prints the ladder and where a step's time goes."""
    console, table = Console(), Table("", "pairs/s", "the default is faster by", "lowest", "highest")
    for row in rows:
        ratio = compared.get(row.name)
        cells = [f"{ratio[key]:.2f}x" for key in ("median", "min", "max")] if ratio else ["", "", ""]
        table.add_row(row.name, f"{row.rate:,.1f}", *cells)
    console.print(table)
    total = sum(parts.values())
    shares = "  ".join(f"{name} {value / total:.0%}" for name, value in parts.items())
    console.print(f"an eager step: {shares}", markup=False)
    if limit is not None:
        rate = next(row.rate for row in rows if row.name == "default")
        console.print(f"{rate / limit['samples_per_s']:.0%} of the bound of {limit['samples_per_s']:,.0f} pairs/s")
