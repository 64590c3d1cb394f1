"""Set-up of a training run on each process: dtype, loader and learner."""

import torch

from ..aware.learner import Learner
from ..config.checks import check_backbone, check_photos
from ..config.schema import Pretrain
from ..data.loader import BatchTooLarge, Loader
from ..distributed import World
from ..errors import UsageError
from ..models.build import build_backbone
from ..models.norm import use_native_sync
from ..runs.build import build_learner
from .apex import apex_optimizers, apex_sync_batch_norm
from .compile import compiles


def activation_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of activations for `--precision`; "auto" is bf16 on CUDA and float32 on a CPU."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def check_installation(config: Pretrain, device: torch.device) -> None:
    """Raises UsageError if the backbone or the optimizer cannot be built with the installed packages and this device.

    Called before any data is opened: the backbone is built without memory, on the meta device.
    """
    with torch.device("meta"):
        backbone, _ = build_backbone(config.backbone, image_size=config.view.size)
    check_backbone(config, backbone)
    if config.optim.implementation == "apex":
        apex_optimizers()
        if device.type != "cuda":
            raise UsageError("--optim.implementation apex needs CUDA; pass --optim.implementation torch")


def open_loader(config: Pretrain, world: World) -> Loader:
    """The loader of the training photos for this process.

    Raises UsageError without --data.train, and for a global batch larger than the data set.
    """
    if config.data.train is None:
        raise UsageError("no training photos; pass --data.train FILE.beton, or --data.train FOLDER")
    try:
        return Loader(
            config.data.train,
            batch_size=config.batch_size // world.size,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            source=config.data.source,
            decode=config.data.decode,
            workers=config.data.workers,
            order=config.data.order,
            max_corrupt=config.data.max_corrupt,
            device=world.device,
        )
    except BatchTooLarge as error:
        check_photos(config, world.size, error.num_samples)
        raise


def learner_on_device(config: Pretrain, world: World, *, num_classes: int, resumed: bool) -> Learner:
    """Builds the learner with its initial weights on the device of this process.

    num_classes: number of classes of the training photos. resumed: a checkpoint will be loaded, so `--init` is not
    read.
    """
    compiled = compiles(config.compile, world.device)
    learner = build_learner(
        config,
        num_classes=num_classes,
        init=None if resumed else config.init,
        batched_views=config.batched_views == "on" or (config.batched_views == "auto" and compiled),
        micro_batch=config.batch_size // world.size // config.accumulate,
    ).to(world.device)
    if config.channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.backbone.sync and world.device.type == "cuda" and world.size > 1:
        if config.backbone.sync_by == "apex":
            use_native_sync(learner, apex_sync_batch_norm())
        elif not compiled:  # torch's SyncBatchNorm waits for the device in every layer, and breaks graphs
            use_native_sync(learner)
    return learner
