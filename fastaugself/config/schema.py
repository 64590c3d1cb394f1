"""The complete configuration of a pretraining run, as typed, nested, frozen dataclasses.

Field docstrings are the help texts of the command line. What makes no sense is refused when the object is made, before
any data is opened (checks.py); serialize.py writes and reads `config.json`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastaugself_kernels import ViewPolicy
from fastaugself_kernels.backends import Backend, Rounding
from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD, default_blur_kernel

from ..aware.augself import AugSelf
from ..aware.cassle import CASSLE
from ..config.optim import Optim
from ..data.order import Order
from ..data.readers.base import Decode
from ..errors import UsageError
from ..methods import AnyMethod, MoCo
from ..models.build import Backbone
from .checks import check_combinations

Photos = Path | tuple[Path, ...]


@dataclass(frozen=True)
class Data:
    """The photos and how they are read."""

    train: Photos | None = None
    """Training photos: .beton files (one, several, or a quoted pattern such as 'shards/*.beton', read as one data set),
    a folder of photos (converted to a .beton beside it once), or `demo` for the photos in scikit-image and
    scikit-learn."""
    val: Photos | None = None
    """Labelled photos for the k-NN and linear check during training, in the same forms; default: none."""
    order: Order = "random"
    """Order of the training photos: random; quasi-random, which reads blocks of neighbouring photos, for disks that are
    slow at random access; or sequential, in file order."""
    source: Literal["auto", "ffcv", "native"] = "auto"
    """Reader of .beton files: FFCV, this project's own (native), or FFCV if installed (auto); equal pixels."""
    decode: Decode = "cpu"
    """JPEG decoder: the CPU, or NVIDIA nvImageCodec on the GPU, for machines with few cores. Its pixels differ from the
    CPU's by rounding."""
    workers: int = 0
    """Number of decoding threads per process; 0 = one per core."""
    max_corrupt: float = 0.001
    """Maximum fraction of corrupt training photos. Each is logged and replaced by the next intact photo of its file;
    more of them end the run."""


@dataclass(frozen=True)
class Augment:
    """How views are computed from their augmentation parameters."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of the normalisation, for images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of the normalisation."""
    blur_kernel: int | None = None
    """Kernel size of the Gaussian blur in pixels, odd; default: a tenth of the view's size, as published (23 at 224 px,
    9 at 96 px)."""
    rounding: Rounding = "uint8"
    """Round the resized crop to uint8 as PIL does, or keep floating point (none)."""
    antialias: bool = True
    """Antialias the bilinear resize, as PIL does."""
    solarize_before_gray: bool = False
    """Solarize between jitter and gray instead of after the blur."""
    backend: Backend = "auto"
    """Augmentation backend: Triton (CUDA), numba (CPU), or the PyTorch reference; auto: by device."""

    def blur_kernel_at(self, size: int) -> int:
        """Kernel size of the blur for views of `size` pixels."""
        return default_blur_kernel(size) if self.blur_kernel is None else self.blur_kernel


@dataclass(frozen=True)
class Log:
    """Logging and checks during training."""

    every: int = 50
    """Log metrics every this many steps."""
    tensorboard: bool = True
    """Write TensorBoard files, if tensorboard is installed."""
    knn_epochs: float = 10.0
    """Run the k-NN and linear check on `--data.val` every this many epochs; 0 = only at the end."""
    tracker: Literal["none", "wandb", "trackio"] = "none"
    """Log metrics to Weights & Biases or Trackio too (the package must be installed)."""
    project: str = "fastaugself"
    """Project name for the tracker."""
    profile: int = 0
    """Number of steps to profile, after ten warm-up steps; the trace goes to profile/ in the run
    folder, for chrome://tracing or Perfetto."""


@dataclass(frozen=True)
class Checkpoint:
    """Checkpointing."""

    minutes: float = 10.0
    """Save a checkpoint every this many minutes."""
    keep: int = 2
    """Number of newest checkpoints to keep."""
    milestone: float = 0.0
    """Keep a checkpoint permanently every this many epochs; 0 = none."""


@dataclass(frozen=True)
class Pretrain:
    """A pretraining run. Running the same command again resumes from the newest checkpoint."""

    data: Data = field(default_factory=Data)
    view: ViewPolicy = field(default_factory=ViewPolicy)
    view2: ViewPolicy | None = None
    """Policy of the second view; default: that of the first (BYOL's differ)."""
    local_crop: ViewPolicy = field(default_factory=lambda: ViewPolicy(size=96, scale=(0.05, 0.14)))
    """Policy of the local crops (multi-crop)."""
    num_local_crops: int = 0
    """Number of local crops of each image (multi-crop), for SwAV."""
    augment: Augment = field(default_factory=Augment)
    backbone: Backbone = field(default_factory=Backbone)
    method: AnyMethod = field(default_factory=MoCo)
    augself: AugSelf = field(default_factory=AugSelf)
    augself_only: bool = False
    """Train on AugSelf's losses alone, without the base method's loss, heads and queue."""
    cassle: CASSLE = field(default_factory=CASSLE)
    optim: Optim = field(default_factory=Optim)
    log: Log = field(default_factory=Log)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    # torchrun on Python 3.11 takes --run for an abbreviation of its own --run-path, hence the second name.
    run: Annotated[Path, tyro.conf.arg(aliases=("--run-dir",))] = Path("runs/pretrain")
    """Run folder: configuration, logs, checkpoints, export and report."""
    init: Path | None = None
    """Initial weights of the backbone: a .safetensors export, or a checkpoint of MoCo, SimSiam, AugSelf, ...,
    torchvision or timm. Default: random initialisation."""
    epochs: int = 200
    """Number of epochs, over which the learning-rate schedule runs."""
    batch_size: int = 256
    """Global batch size: images per optimizer step over all processes (each gives two views)."""
    seed: int = 0
    """Random seed of the data order, the augmentation, the initial weights and queue, and dropout."""
    max_steps: int | None = None
    """Stop after this many steps; the schedule still spans all epochs."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Device to train on; auto: CUDA if available."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision: dtype of the activations (weights stay fp32); auto: bf16 on CUDA, fp32 on a CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Use torch.compile; auto: on CUDA, with a fall-back to eager mode if compilation fails."""
    batched_views: Literal["auto", "on", "off"] = "auto"
    """Encode both views in one forward pass, each with its own batch statistics (ResNets); auto: when compiled."""
    cuda_graphs: bool = False
    """Use CUDA graphs with torch.compile: faster for small batches, where launching kernels takes most of the time."""
    accumulate: int = 1
    """Gradient accumulation steps. Batch norm statistics are per micro-batch."""
    channels_last: bool = True
    """Use the channels-last memory format for images and convolutions."""

    def __post_init__(self) -> None:
        def refuse(option: str, value: object, rule: str) -> None:
            raise UsageError(f"--{option} must be {rule}, got {value}")

        if self.epochs < 1:
            refuse("epochs", self.epochs, "at least 1")
        if self.batch_size < 2:
            refuse("batch-size", self.batch_size, "at least 2 (batch norm and the pairs need it)")
        if self.accumulate < 1:
            refuse("accumulate", self.accumulate, "at least 1")
        if self.cuda_graphs and self.accumulate > 1:
            raise UsageError("--cuda-graphs does not work with gradient accumulation; pass --accumulate 1")
        if self.max_steps is not None and self.max_steps < 1:
            refuse("max-steps", self.max_steps, "at least 1")
        if self.data.workers < 0:
            refuse("data.workers", self.data.workers, "a number of threads, or 0 for one per core")
        if not 0 <= self.data.max_corrupt <= 1:
            refuse("data.max-corrupt", self.data.max_corrupt, "a fraction of the photos from 0 to 1, such as 0.001")
        if not -(1 << 63) <= self.seed < 1 << 63:
            refuse("seed", self.seed, "of 64 bits")
        if self.log.every < 1:
            refuse("log.every", self.log.every, "at least 1")
        if self.checkpoint.minutes <= 0:
            refuse("checkpoint.minutes", self.checkpoint.minutes, "above 0")
        if self.checkpoint.keep < 1:
            refuse("checkpoint.keep", self.checkpoint.keep, "at least 1")
        if self.checkpoint.milestone < 0:
            refuse("checkpoint.milestone", self.checkpoint.milestone, "at least 0")
        check_combinations(self)

    @property
    def policies(self) -> tuple[ViewPolicy, ViewPolicy]:
        """The policies of the two views that methods compare."""
        return (self.view, self.view2 or self.view)

    @property
    def all_policies(self) -> tuple[ViewPolicy, ...]:
        """The policies of all views, local crops last."""
        return (*self.policies, *[self.local_crop] * self.num_local_crops)
