"""Set-up of a training run on each process: dtype, loader and learner."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from ..aware.learner import Learner
from ..config.aware_checks import check_backbone
from ..config.checks import check_photos
from ..config.schema import Pretrain
from ..data.dataset import Dataset
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


@contextlib.contextmanager
def backend_settings(config: Pretrain, device: torch.device) -> Iterator[None]:
    """Context manager with the process-wide settings of a run on CUDA, which are as before afterwards.

    Compiled code is made for the settings at its compilation, so they must not change during a run.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    torch.set_float32_matmul_precision(config.matmul_precision)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.set_float32_matmul_precision(before[1])


def half_precision_warning(dtype: torch.dtype, device: torch.device) -> str:
    """What to say before a run whose activations this CPU has no instructions for; "" if it has them."""
    units = {torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"), torch.float16: ("avx512_fp16", "amx_fp16", "fp16")}
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # older versions of torch do not know
    if device.type != "cpu" or dtype not in units or capabilities is None:
        return ""
    if any(capabilities().get(name, False) for name in units[dtype]):
        return ""
    name = str(dtype).removeprefix("torch.")
    return (
        f"this CPU has no instructions for {name}, and emulating them was 8 to 10 times slower than float32 where it "
        "was measured: pass --precision fp32"
    )


def check_installation(config: Pretrain, device: torch.device) -> None:
    """Raises UsageError if the backbone or the optimizer cannot be built with the installed packages and this device.

    Called before any data is opened: the backbone is built without memory, on the meta device.
    """
    with torch.device("meta"):
        backbone, _ = build_backbone(config.backbone, image_size=config.view.size, other_sizes=config.other_sizes)
    check_backbone(config, backbone)
    if config.optim.implementation == "apex":
        apex_optimizers()
        if device.type != "cuda":
            raise UsageError("--optim.implementation apex needs CUDA; pass --optim.implementation torch")


def open_loader(config: Pretrain, world: World) -> Loader:
    """The loader of the training photos for this process.

    Raises UsageError without --data.train, for a global batch larger than the data set, and for missing labels.
    """
    if config.data.train is None:
        raise UsageError("no training photos; pass --data.train FILE.beton, or --data.train FOLDER")
    try:
        loader = Loader(
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
    try:
        check_labels(config, loader)
    except BaseException:
        loader.close()
        raise
    return loader


def check_labels(config: Pretrain, data: Loader | Dataset) -> None:
    """Raises UsageError for photos without a label that the method needs; where none has one, the method complains."""
    without = np.flatnonzero(data.labels_N < 0)
    if config.base_loss and config.method.needs_labels and 0 < len(without) < data.num_samples:
        raise UsageError(
            f"{config.method.title.lower()} training needs a label for every photo: {len(without)} of "
            f"{data.num_samples} have none, the first is {data.describe(int(without[0]))}; give them labels or leave "
            "them out and write the file again, or pass --data.train with labelled photos only"
        )


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
