"""The complete configuration of a pretraining run, as typed, nested, frozen dataclasses.

Field docstrings are the help texts of the command line. Text is taken wherever a path is. Values and combinations that
cannot work raise UsageError when the object is made, before any data is opened (checks.py, aware_checks.py).
serialize.py writes and reads `config.json`.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fastaugself_kernels import ViewPolicy
from fastaugself_kernels.backends import Backend, Rounding, Saturation
from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD, default_blur_kernel

from ..aware import CASSLE, AugSelf, AwareConfig, ConditionalPredictor
from ..aware.base import Share, ViewRequest, unique
from ..config.optim import Optim
from ..data.order import Order
from ..data.readers.base import Decode
from ..errors import UsageError
from ..methods import AnyMethod, MoCo
from ..models.build import Backbone
from .check_sets import CheckPhotos, check_photos
from .checks import check_combinations
from .sizes import Sizes

Photos = Path | tuple[Path, ...]


def _path(option: str, value: Any) -> Path:
    """A path from text or another kind of path; UsageError for anything else and for empty text."""
    if value == "":
        raise UsageError(f"--{option} is empty; pass a path, or leave it out")
    try:
        return Path(value)
    except TypeError:
        raise UsageError(f"--{option} must be a path, got {type(value).__name__} {value!r:.60}") from None


def _photos(option: str, value: Any) -> Photos | None:
    """A path, or several."""
    if isinstance(value, list | tuple):
        return tuple(_path(option, part) for part in value)
    return None if value is None else _path(option, value)


@dataclass(frozen=True)
class Data:
    """Data sets and how they are read."""

    train: Photos | None = None
    """Training photos: .beton files (one, several, or a quoted pattern such as 'shards/*.beton'; several are one data
    set), a folder of photos (converted once to a .beton beside it), or `demo` for the photos that come with
    scikit-image and scikit-learn."""
    val: Photos | None = None
    """Labelled photos for the k-NN and linear check during training, given like --data.train. Default: no check."""
    order: Order = "random"
    """Order of the training photos: random; quasi-random (shuffled blocks of neighbouring photos, for disks with slow
    random access); or sequential (file order)."""
    source: Literal["auto", "ffcv", "native"] = "auto"
    """Reader of .beton files: FFCV, this project's own (native), or FFCV if installed (auto). Both give the same
    pixels."""
    decode: Decode = "cpu"
    """JPEG decoder: on the CPU, or NVIDIA nvImageCodec on the GPU, for machines with few cores. GPU and CPU pixels
    differ by rounding."""
    workers: int = 0
    """Number of decoding threads per process; 0 = one per core."""
    max_corrupt: float = 0.001
    """Maximum fraction of corrupt training photos; the run fails above it. Each corrupt photo is logged and replaced by
    the next intact one of its file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", _photos("data.train", self.train))
        object.__setattr__(self, "val", _photos("data.val", self.val))


@dataclass(frozen=True)
class Augment:
    """Computation of the views from their augmentation parameters."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of the normalisation, for images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of the normalisation."""
    blur_kernel: int | None = None
    """Kernel size of the Gaussian blur in pixels, odd. Default: a tenth of the view's size, as published (23 at 224
    px, 9 at 96 px)."""
    rounding: Rounding = "uint8"
    """Round the resized crop to uint8 as PIL does, or keep floating point (none)."""
    antialias: bool = True
    """Antialias the bilinear resize, as PIL does."""
    solarize_before_gray: bool = False
    """Solarize between jitter and gray instead of after the blur."""
    saturation: Saturation = "blend"
    """Saturation of the jitter: mixed with the luma as in torchvision (blend), or S of HSV as in kornia 0.4.1 and thus
    in AugSelf's code (hsv)."""
    backend: Backend = "auto"
    """Augmentation backend: Triton (CUDA), numba (CPU), or the PyTorch reference; auto: by device."""

    def blur_kernel_at(self, size: int) -> int:
        """Kernel size of the blur for views of `size` pixels."""
        return default_blur_kernel(size) if self.blur_kernel is None else self.blur_kernel


@dataclass(frozen=True)
class Log:
    """Logging and checks during training."""

    every: int = 50
    """Number of steps between log lines."""
    tensorboard: bool = True
    """Write TensorBoard files, if tensorboard is installed."""
    knn_epochs: float = 10.0
    """Number of epochs between checks on --data.val and --log.check; 0 = only at the end."""
    check: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=PATH")]] = ()
    """Other photos for checks of their own, as NAME=PATH or NAME=TRAIN:VAL, given like --data.val; may be repeated. Of
    one PATH, a fifth of each class is classified by the rest. Photos without labels have the scores that need none."""
    tracker: Literal["none", "wandb", "trackio"] = "none"
    """Experiment tracker that also receives the metrics; its package must be installed."""
    project: str = "fastaugself"
    """Project name in the tracker."""
    profile: int = 0
    """Number of steps to profile, after ten warm-up steps. Traces for Perfetto or chrome://tracing are written to
    profile/ in the run folder."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "check", tuple(self.check))
        check_photos(self.check)

    @property
    def check_photos(self) -> tuple[CheckPhotos, ...]:
        """The photos of `check`."""
        return check_photos(self.check)


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoints of the run, from which it resumes."""

    minutes: float = 10.0
    """Minutes between checkpoints."""
    keep: int = 2
    """Number of newest checkpoints to keep."""
    milestone: float = 0.0
    """Number of epochs between checkpoints that are never deleted; 0 = none."""


@dataclass(frozen=True)
class Pretrain:
    """A pretraining run. Running the same command again resumes from the newest checkpoint."""

    data: Data = field(default_factory=Data)
    view: ViewPolicy = field(default_factory=ViewPolicy)
    """Augmentation of the views, as ranges and probabilities from which each view's parameters are drawn. The second
    view has the same, unless the recipe (as BYOL's) or an option --view2.* sets its own."""
    view2: ViewPolicy | None = None
    """Augmentation of the second view, if it differs from the first (as in BYOL). Default: that of --view."""
    size_schedule: Annotated[tuple[str, ...], tyro.conf.arg(name="view.schedule")] = ()
    """Size of the views over the run, as START:SIZE: `0:128 0.5:160 0.9:224` trains at 128 px for the first half and at
    224 px in the last tenth. The last size is that of --view.size. Default: one size."""
    local_crop: ViewPolicy = field(default_factory=lambda: ViewPolicy(size=96, scale=(0.05, 0.14)))
    """Augmentation of the local crops (multi-crop)."""
    num_local_crops: int = 0
    """Number of local crops per image (multi-crop), for the methods that take them."""
    augment: Augment = field(default_factory=Augment)
    backbone: Backbone = field(default_factory=Backbone)
    method: AnyMethod = field(default_factory=MoCo)
    augself: AugSelf = field(default_factory=AugSelf)
    cassle: CASSLE = field(default_factory=CASSLE)
    predictor: ConditionalPredictor = field(default_factory=ConditionalPredictor)
    aware: tyro.conf.Suppress[tuple[AwareConfig, ...]] = ()  # the command line has each under its own name instead
    """Other objectives that learn from the augmentation parameters (E-SSL, EquiMod, ...), at most one of each kind."""
    optim: Optim = field(default_factory=Optim)
    log: Log = field(default_factory=Log)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    # torchrun on Python 3.11 parses --run as an abbreviation of its own option --run-path, hence the second name.
    run: Annotated[Path, tyro.conf.arg(aliases=("--run-dir",))] = Path("runs/pretrain")
    """Run folder: configuration, logs, checkpoints, export and report."""
    init: Path | None = None
    """File with initial weights of the backbone: a .safetensors export of a run, or a checkpoint of MoCo, SimSiam,
    AugSelf, torchvision, timm and others. Default: random initialisation."""
    epochs: int = 200
    """Number of epochs; also the length of the learning-rate schedule."""
    batch_size: int = 256
    """Global batch size: images per optimizer step over all processes (each gives two views)."""
    seed: int = 0
    """Random seed of data order, augmentation, initial weights and dropout."""
    max_steps: int | None = None
    """Stop after this many steps; the schedule still spans all epochs."""
    extend: Literal["no", "restart", "tail"] = "no"
    """Go on with a run that was started with fewer --epochs, after its own schedule: restart sets the learning rate to
    its peak and decays it again over the added epochs; tail keeps the last learning rate (at least 1 % of the peak).
    Whatever else follows the length of the run, such as the EMA momentum, continues as if it had been longer from here
    on."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Device to train on; auto: CUDA if available."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision: dtype of the activations (weights stay fp32); auto: bf16 on CUDA, fp32 on the CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Use torch.compile; auto: on CUDA, with eager mode as fall-back if compilation fails."""
    batched_views: Literal["auto", "on", "off"] = "auto"
    """Encode both views in one forward pass, with separate batch statistics (ResNets only); auto: if compiled."""
    cuda_graphs: bool = False
    """Use CUDA graphs with torch.compile; faster where kernel launches dominate (small batches or models)."""
    cudnn_benchmark: bool = False
    """Let cuDNN measure its convolution algorithms in the first step of every input shape and keep the fastest; which
    one that is may differ from run to run, by rounding."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products on CUDA: float32, TF32 (high) or bfloat16 (medium). Most products are in the
    dtype of --precision; losses and their similarities are in float32."""
    accumulate: int = 1
    """Gradient accumulation steps: number of micro-batches per optimizer step. Batch norm statistics are per
    micro-batch."""
    channels_last: bool = True
    """Use the channels-last memory format for images and convolutions."""

    def __post_init__(self) -> None:
        def require(holds: bool, option: str, value: object, rule: str, instead: object) -> None:
            if not holds:
                raise UsageError(f"--{option} must be {rule}, got {value}; pass --{option} {instead}")

        object.__setattr__(self, "run", _path("run", self.run))
        object.__setattr__(self, "init", None if self.init is None else _path("init", self.init))
        data, log, saved = self.data, self.log, self.checkpoint
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1", Pretrain.epochs)
        batch_rule = "at least 2 (batch norm and the pairs need it)"
        require(self.batch_size >= 2, "batch-size", self.batch_size, batch_rule, Pretrain.batch_size)
        require(self.accumulate >= 1, "accumulate", self.accumulate, "at least 1", 1)
        if self.cuda_graphs and self.accumulate > 1:
            raise UsageError(
                "--cuda-graphs does not work with gradient accumulation; pass --no-cuda-graphs, or --accumulate 1"
            )
        require(self.max_steps is None or self.max_steps >= 1, "max-steps", self.max_steps, "at least 1", 1)
        require(data.workers >= 0, "data.workers", data.workers, "a number of threads, or 0 for one per core", 0)
        corrupt_rule = "a fraction of the photos from 0 to 1"
        require(0 <= data.max_corrupt <= 1, "data.max-corrupt", data.max_corrupt, corrupt_rule, Data.max_corrupt)
        require(-(1 << 63) <= self.seed < 1 << 63, "seed", self.seed, "a 64-bit integer", 0)
        for i, std in enumerate(self.augment.std):
            values = " ".join(f"{s:g}" if s > 0 else f"{IMAGENET_STD[j]:g}" for j, s in enumerate(self.augment.std))
            require(std > 0, "augment.std", std, f"above 0 (channel {i})", values)
        require(log.every >= 1, "log.every", log.every, "at least 1", Log.every)
        require(log.knn_epochs >= 0, "log.knn-epochs", log.knn_epochs, "at least 0", Log.knn_epochs)
        require(log.profile >= 0, "log.profile", log.profile, "at least 0", Log.profile)
        require(saved.minutes > 0, "checkpoint.minutes", saved.minutes, "above 0", Checkpoint.minutes)
        require(saved.keep >= 1, "checkpoint.keep", saved.keep, "at least 1", Checkpoint.keep)
        require(saved.milestone >= 0, "checkpoint.milestone", saved.milestone, "at least 0", Checkpoint.milestone)
        check_combinations(self)

    @property
    def sizes(self) -> Sizes:
        """The size of the global views over the run."""
        return Sizes(self.size_schedule, self.view.size)

    @property
    def policies(self) -> tuple[ViewPolicy, ViewPolicy]:
        """The policies of the two global views."""
        return (self.view, self.view2 or self.view)

    @property
    def base_loss(self) -> bool:
        """Whether the base method's loss is trained: unless an objective is `only`."""
        return not any(options.only for options in (self.augself, *self.aware))

    @property
    def objectives(self) -> dict[str, AwareConfig]:
        """The objectives that are trained, by name: those with a weight, and if some are `only`, these."""
        every: tuple[AwareConfig, ...] = (self.augself, *self.aware)
        return {o.name: o for o in every if o.weights and (self.base_loss or o.only)}

    @property
    def requests(self) -> dict[str, tuple[ViewRequest, ...]]:
        """The extra views that each objective asks for."""
        return {name: options.requests(self.policies) for name, options in self.objectives.items()}

    @property
    def share(self) -> Share | None:
        """Parameters that samples share in the global views, if an objective asks for it."""
        return next((o.share for o in self.objectives.values() if o.share is not None), None)

    @property
    def chunk(self) -> int:
        """The number of samples that a batch must be a multiple of, for chunks of samples with shared parameters."""
        shares = [self.share, *(request.share for wanted in self.requests.values() for request in wanted)]
        return math.lcm(*(share.chunk for share in shares if share is not None and share.chunk > 0))

    @property
    def all_policies(self) -> tuple[ViewPolicy, ...]:
        """The policies of all views: the two global views, the local crops, then the extra views."""
        extra = [request.policy for request in unique(self.requests) for _ in range(request.count)]
        return (*self.policies, *[self.local_crop] * self.num_local_crops, *extra)

    @property
    def other_sizes(self) -> dict[str, int]:
        """Sizes in pixels of the views that are not as large as the global ones, by their option with {} for it."""
        options = {"--local-crop.size {}": self.local_crop.size} if self.num_local_crops else {}
        for name, wanted in self.requests.items():
            options |= {f"--{name}.view.size {{}}": request.policy.size for request in wanted}
        stages = self.sizes.stages
        for i, stage in enumerate(stages):
            others = [*map(str, stages[:i]), f"{stage.start:g}:{{}}", *map(str, stages[i + 1 :])]
            options["--view.schedule " + " ".join(others)] = stage.size
        return {option: size for option, size in options.items() if size != self.view.size}
