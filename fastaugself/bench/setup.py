"""Shared by the training benchmarks: options, networks, batch, and the trainer's step."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import tyro

from fastaugself_kernels import ViewPolicy

from ..aware.augself import AugSelf
from ..aware.learner import Learner
from ..config.optim import Optim
from ..config.schema import Augment, Pretrain
from ..data.ragged import RaggedBatch
from ..distributed import DeviceName, resolve_device
from ..methods import BYOL, MoCo, SimCLR, SimSiam
from ..methods.base import Views
from ..models.build import Backbone
from ..runs.build import build_learner
from ..training.batch import make_batch
from ..training.optim import make_optimizer, set_learning_rate
from ..training.step import TrainStep

LR = 0.01
METHODS = {"moco": MoCo, "simsiam": SimSiam, "simclr": SimCLR, "byol": BYOL}
MethodName = Literal["moco", "simsiam", "simclr", "byol"]


@dataclass(frozen=True)
class Setup:
    """Method, model, batch and device. The defaults are an ImageNet setting on CUDA, and a small one on a CPU."""

    method: MethodName = "moco"
    """Method to train."""
    backbone: str = "auto"
    """Name of the ResNet; auto = resnet50 on CUDA, resnet18 on a CPU."""
    width: int = 64
    """Channels of the first stage of the ResNet."""
    size: int = 0
    """Size of the views in pixels; 0 = 224 on CUDA, 64 on a CPU."""
    batch: int = 0
    """Local batch size (pairs per step and process); 0 = 256 on CUDA, 16 on a CPU."""
    queue: int = 0
    """Size of MoCo's queue; 0 = 65536 on CUDA, 4096 on a CPU."""
    device: DeviceName = "auto"
    """Device; auto = CUDA if available."""

    @property
    def where(self) -> torch.device:
        """The device. Raises UsageError if CUDA is requested but not available."""
        found = resolve_device(self.device)
        return torch.device("cuda", 0) if found.type == "cuda" else found

    def resolved(self) -> "Setup":
        """A copy with `auto` and 0 replaced by their values."""
        cuda = self.where.type == "cuda"
        return dataclasses.replace(
            self,
            backbone=("resnet50" if cuda else "resnet18") if self.backbone == "auto" else self.backbone,
            size=self.size or (224 if cuda else 64),
            batch=self.batch or (256 if cuda else 16),
            queue=self.queue or (65_536 if cuda else 4096),
            device="cuda" if cuda else "cpu",
        )

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the activations: the trainer's default."""
        return torch.bfloat16 if self.where.type == "cuda" else torch.float32

    def config(self) -> Pretrain:
        """The configuration whose step is measured."""
        of = self.resolved()
        moco = of.method == "moco"
        return Pretrain(
            view=ViewPolicy.moco_v2(of.size),
            augment=Augment(),
            backbone=Backbone(name=of.backbone, width=of.width, stem="imagenet" if of.size > 48 else "small"),
            method=MoCo(queue=of.queue // of.batch * of.batch) if moco else METHODS[of.method](),
            augself=AugSelf(crop=0.5, color=0.5),
            optim=Optim(lr=LR * 256 / of.batch),
            batch_size=of.batch,
        )


FlatSetup = Annotated[Setup, tyro.conf.arg(name="")]  # on the command line: --batch, not --setup.batch


def noise_batch(config: Pretrain, device: torch.device, side: int = 0) -> RaggedBatch:
    """A batch of noise images of 375 x 500 (96 x 128 for views below 160 px), or of `side` x `side`."""
    height, width = (side, side) if side else (375, 500) if config.view.size >= 160 else (96, 128)
    B, random = config.batch_size, torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (B * height * width * 3,), dtype=torch.uint8, generator=random)
    offsets_B = torch.arange(B, dtype=torch.int64) * (height * width * 3)
    sizes_B2 = torch.tensor([[height, width]] * B, dtype=torch.int32)
    return RaggedBatch(pixels, offsets_B, sizes_B2, torch.zeros(B, dtype=torch.int64), torch.arange(B)).to(device)


def train_step(
    config: Pretrain,
    device: torch.device,
    *,
    channels_last: bool = True,
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
    batched_views: bool = False,
    graphs: bool = False,
    processes: int = 1,
    prepare: Callable[[Learner], Any] | None = None,
) -> TrainStep:
    """The trainer's step with a new learner; its learning rate is stable on noise. prepare: modifies the learner."""
    learner: Learner = build_learner(config, batched_views=batched_views).to(device)
    if channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if prepare is not None:
        prepare(learner)
    optimizer = make_optimizer(learner, config.optim, constant_lr=learner.method.constant_lr)
    set_learning_rate(optimizer, LR, LR)
    return TrainStep(
        learner, optimizer, device=device, dtype=dtype, compile="on" if compile else "off", cuda_graphs=graphs,
        processes=processes,
    )  # fmt: skip


def inputs(config: Pretrain, batch: RaggedBatch, dtype: torch.dtype, *, channels_last: bool = True) -> Views:
    """The input of a step; the memory format of the views is NCHW without `channels_last`."""
    views = make_batch(config, batch, 0, dtype).views
    return views if channels_last else views._replace(x_VBCHW=views.x_VBCHW.contiguous())


def settings(config: Pretrain, rounds: int, seconds: float) -> dict[str, Any]:
    """Settings for the record."""
    return {
        "method": type(config.method).__name__, "backbone": config.backbone.name, "width": config.backbone.width,
        "size": config.view.size, "batch": config.batch_size, "queue": getattr(config.method, "queue", 0),
        "rounds": rounds, "seconds": seconds, "threads": torch.get_num_threads(),
    }  # fmt: skip
