"""The time of a training step, estimated from the operations that it computes and the rate of a small network.

On a CPU a step of an ImageNet recipe takes a minute and several GiB. So its floating-point operations are counted on
PyTorch's meta device, where tensors have shapes but no values, and divided by the rate at which this machine trains the
backbone on a few small photos.

Shape suffixes: V views, B batch, P parameter columns.
"""

import time
from contextlib import nullcontext
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from ..config.schema import Pretrain
from ..data.ragged import RaggedBatch
from ..models.build import Backbone, build_backbone
from ..runs.build import build_learner
from ..training.batch import BatchMaker, make_batch

GIGA = 1e9
LARGE = 60e6  # parameters: a larger backbone is not timed itself
SIDE = 64  # pixels: largest photos of the timed network
WORK = 5 * GIGA  # operations of a pass that is timed
TIMED_ON_GPU = 2  # steps, the first to warm up


class Estimate(NamedTuple):
    """Seconds per photo of forward and backward pass on one device, and how they were found, for the plan."""

    seconds: float
    how: str


class Built(NamedTuple):
    """Sizes of a learner. backbone, trainable: numbers of parameters. flops: per photo, forward and backward."""

    backbone: int
    trainable: int
    flops: float


class _Shapes(BatchMaker):
    """Makes batches whose views have shapes but no values."""

    def _augment(self, photos: RaggedBatch, params_VBP: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        (V, B), size = params_VBP.shape[:2], self.shown(size)
        shift_VB3 = torch.zeros(V, B, 3) if self.conditioned else None
        return torch.empty(V, B, 3, size, size, device="meta"), shift_VB3


def count(config: Pretrain, *, num_classes: int, batch_size: int, size: int | None = None) -> Built:
    """The sizes of the learner of a run, and the operations of a step, without allocating either.

    batch_size: photos per forward pass on one process. size: of the global views, by default `config.view.size`. A
    multiplication and an addition count as two operations.
    """
    views = _Shapes(config, torch.float32)(blank_photos(batch_size, config.view.size, pixels=False), 0, size).views
    views = tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, views)
    # There is no autocast on the meta device, and the number of operations does not depend on it.
    with torch.random.fork_rng(devices=[]), torch.device("meta"), mock.patch.object(torch, "autocast", _no_context):
        learner = build_learner(config, num_classes=num_classes, micro_batch=batch_size)
        with FlopCounterMode(display=False) as counter:
            learner(views).loss.backward()
    return Built(
        sum(p.numel() for p in learner.method.backbone.parameters()),
        sum(p.numel() for p in learner.parameters() if p.requires_grad),
        counter.get_total_flops() / batch_size,
    )


def _no_context(*_: object, **__: object) -> nullcontext[None]:
    return nullcontext()


def estimate(config: Pretrain, built: Built, device: torch.device, *, num_classes: int, batch_size: int) -> Estimate:
    """The time per photo: on a GPU by a step of the run itself, on a CPU from its operations and a small network."""
    if device.type == "cuda":
        return _timed_step(config, device, num_classes=num_classes, batch_size=batch_size)
    backbone, side = probe_network(config, built)
    try:
        rate, photos = train_rate(backbone, side)
    except Exception:  # a model of timm that does not take such small photos
        backbone = Backbone(name="resnet18")
        rate, photos = train_rate(backbone, side)
    what = f"{backbone.name} of width {backbone.width}" if backbone.name.startswith("resnet") else backbone.name
    how = (
        f"estimated: {built.flops / GIGA:.3g} GFLOP per photo, at the {rate / GIGA:.3g} GFLOP/s of {what} on {photos} "
        f"photos of {side} px here, timed now; expect up to twice or half of it"
    )
    return Estimate(built.flops / rate, how)


def probe_network(config: Pretrain, built: Built) -> tuple[Backbone, int]:
    """The network that is timed and the side of its photos: the run's backbone, a ResNet-18 if that is large."""
    backbone, side = config.backbone, min(config.view.size, SIDE)
    if built.backbone > LARGE:
        return Backbone(name="resnet18"), side
    if backbone.name.startswith("timm:"):
        return Backbone(name=backbone.name), side
    return Backbone(name=backbone.name, width=backbone.width, stem=backbone.stem), side


def train_rate(backbone: Backbone, side: int) -> tuple[float, int]:
    """(operations per second, number of photos) of forward and backward passes of a backbone on the CPU.

    The faster of two passes after a warm-up: another process slows it down less.
    """
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            _train(build_backbone(backbone, image_size=side)[0], torch.empty(2, 3, side, side))
        each = counter.get_total_flops() / 2
        photos = round(min(max(WORK / each, 2), 64))
        module, _ = build_backbone(backbone, image_size=side)
        x_BCHW = torch.rand(photos, 3, side, side)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        _train(module, x_BCHW)
        seconds.append(time.perf_counter() - began)
    return photos * each / min(seconds[1:]), photos


def _train(module: nn.Module, x_BCHW: Tensor) -> None:
    module.zero_grad()
    module(x_BCHW).square().mean().backward()


def blank_photos(count: int, side: int, *, pixels: bool = True) -> RaggedBatch:
    """Random square photos, or only their sizes."""
    each = side * side * 3 if pixels else 0
    return RaggedBatch(
        torch.randint(0, 256, (count * each,), dtype=torch.uint8),
        torch.arange(count) * each,
        torch.full((count, 2), side, dtype=torch.int32),
        torch.zeros(count, dtype=torch.int64),
        torch.arange(count),
    )


def _timed_step(config: Pretrain, device: torch.device, *, num_classes: int, batch_size: int) -> Estimate:
    """The time of forward and backward of the run's own step on random photos, after a warm-up."""
    learner = build_learner(config, num_classes=num_classes, micro_batch=batch_size).to(device)
    half = config.precision != "fp32"
    dtype = torch.bfloat16 if half else torch.float32
    views = make_batch(config, blank_photos(batch_size, config.view.size).to(device), 0, dtype).views
    elapsed = 0.0
    for _ in range(TIMED_ON_GPU):
        began = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            loss = learner(views).loss
        loss.backward()
        torch.cuda.synchronize()
        elapsed = time.perf_counter() - began
    return Estimate(elapsed / batch_size, f"timed on {batch_size} photos, eager")
