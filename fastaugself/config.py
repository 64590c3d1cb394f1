"""The complete configuration of a pretraining run, as typed, nested, frozen dataclasses.

Field docstrings are the help texts of the command line. `to_dict` and `from_dict` carry a configuration through
`config.json`.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from fastaugself_kernels import ViewPolicy
from fastaugself_kernels.backends import Backend, Rounding
from fastaugself_kernels.params import IMAGENET_MEAN, IMAGENET_STD

from .combinations import check_combinations
from .data.order import Order
from .data.source import Decode
from .errors import UsageError
from .methods import METHODS, AnyMethod, MoCo
from .methods.augself import AugSelf
from .methods.cassle import Cassle
from .models.build import Backbone
from .training.optim import Optim

T = TypeVar("T")
Photos = Path | tuple[Path, ...]


@dataclass(frozen=True)
class Data:
    """The photos and how they are read."""

    train: Photos | None = None
    """Training photos: .beton files (one, several, or a quoted pattern such as 'shards/*.beton', which count as one
    data set in their order), or a folder of photos (written to a .beton beside it once), or `demo` for the photos that
    come with scikit-image and scikit-learn."""
    val: Photos | None = None
    """Labelled photos for the k-NN check during training, likewise; none by default."""
    order: Order = "random"
    """Order of the training photos: random; quasi-random, which reads blocks of neighbours one after the other, for
    disks that are slow at random access; or sequential, as they stand in the files."""
    source: Literal["auto", "ffcv", "native"] = "auto"
    """Reader of .beton files: FFCV, this project's own reader, or FFCV where it is installed. Both give equal bits."""
    decode: Decode = "cpu"
    """Who decodes JPEGs: the CPU, or nvimgcodec (NVIDIA nvImageCodec), the GPU, where cores are few. Its pixels differ
    from the CPU's by rounding."""
    workers: int = 0
    """Decoding threads of each process; 0 = as many as it has cores."""
    max_corrupt: float = 0.001
    """Share of the training photos that may be corrupt. Each is replaced by the next intact one of its file and named
    in the log; more of them end the run."""


@dataclass(frozen=True)
class Augment:
    """How views are made from their parameters."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean colour subtracted from images in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation by which they are divided."""
    blur_kernel: int = 23
    """Taps of the Gaussian blur, odd; the published recipes use 23 at 224 px and 9 at 96 px."""
    rounding: Rounding = "uint8"
    """Round the resized crop to whole 1/255 as PIL does, or not."""
    antialias: bool = True
    """Widen the resize filter when it shrinks, as PIL does."""
    solarize_before_gray: bool = False
    """Solarize between jitter and gray instead of after the blur."""
    backend: Backend = "auto"
    """Kernels that make the views: Triton on CUDA, numba on the CPU, or the plain PyTorch reference."""


@dataclass(frozen=True)
class Log:
    """What is written while training, and how often."""

    every: int = 50
    """Steps between two lines of metrics.jsonl."""
    tensorboard: bool = True
    """Also write TensorBoard files, where tensorboard is installed."""
    knn_epochs: float = 10.0
    """Epochs between two checks on `--data.val` by k-NN and a linear probe; 0 = only at the end."""
    tracker: Literal["none", "wandb", "trackio"] = "none"
    """Also send metrics to Weights & Biases or Trackio, where that package is installed."""
    project: str = "fastaugself"
    """Project there."""
    profile: int = 0
    """Steps to profile, after ten; the trace goes to profile/ in the run folder, for chrome://tracing or Perfetto."""


@dataclass(frozen=True)
class Checkpoint:
    """When the training state is saved."""

    minutes: float = 10.0
    """Minutes between two checkpoints."""
    keep: int = 2
    """How many of the newest checkpoints stay."""
    milestone: float = 0.0
    """Epochs between two checkpoints that stay for good; 0 = none do."""


@dataclass(frozen=True)
class Pretrain:
    """A pretraining run. The same command again goes on where the run folder's last checkpoint ends."""

    data: Data = field(default_factory=Data)
    view: ViewPolicy = field(default_factory=ViewPolicy)
    view2: ViewPolicy | None = None
    """Policy of the second view, where it differs from the first (BYOL)."""
    small_view: ViewPolicy = field(default_factory=lambda: ViewPolicy(size=96, scale=(0.05, 0.14)))
    """Policy of the further small views (multi-crop)."""
    small_views: int = 0
    """Further small views of each sample, for SwAV."""
    augment: Augment = field(default_factory=Augment)
    backbone: Backbone = field(default_factory=Backbone)
    method: AnyMethod = field(default_factory=MoCo)
    augself: AugSelf = field(default_factory=AugSelf)
    ss_only: bool = False
    """Train on AugSelf's losses alone, without the method's own loss, networks and queue."""
    cassle: Cassle = field(default_factory=Cassle)
    optim: Optim = field(default_factory=Optim)
    log: Log = field(default_factory=Log)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    # torchrun on Python 3.11 takes --run for an abbreviation of its own --run-path, hence the second name.
    run: Annotated[Path, tyro.conf.arg(aliases=("--run-dir",))] = Path("runs/pretrain")
    """Folder of the run: configuration, logs, checkpoints, export, report."""
    init: Path | None = None
    """Weights that the backbone starts from: a .safetensors export, or a checkpoint of MoCo, SimSiam, AugSelf, ...,
    torchvision or timm. Default: random ones."""
    epochs: int = 200
    """Passes over the training photos; the learning-rate schedule ends with the last."""
    batch_size: int = 256
    """Samples per step over all processes (each sample gives two views)."""
    seed: int = 0
    """Key of all randomness: order, augmentation, initial weights."""
    max_steps: int | None = None
    """End early, after this many steps; the schedule still spans all epochs."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to train; auto takes CUDA where there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type of the activations; auto is bf16 on CUDA and fp32 on the CPU. Weights stay fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the step; auto compiles on CUDA, where it pays, and goes on without where that fails."""
    joint_views: Literal["auto", "on", "off"] = "auto"
    """Both views in one forward pass of the encoder, each with its own batch statistics (methods that encode both with
    the same network); auto does so in compiled code."""
    cuda_graphs: bool = False
    """Record the compiled kernels and replay them: for small batches, where launching takes longer than computing."""
    accumulate: int = 1
    """Parts into which each process cuts its share of the batch, one forward and backward each, before the optimizer's
    step: the global batch on fewer devices. Batch norm sees one part at a time."""
    channels_last: bool = True
    """Memory layout of images and convolutions."""

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
            raise UsageError("--cuda-graphs replays into the gradients it summed before; pass --accumulate 1 with it")
        if self.max_steps is not None and self.max_steps < 1:
            refuse("max-steps", self.max_steps, "at least 1")
        if self.data.workers < 0:
            refuse("data.workers", self.data.workers, "a number of threads, or 0 for one a core")
        if not 0 <= self.data.max_corrupt <= 1:
            refuse("data.max-corrupt", self.data.max_corrupt, "a share of the photos from 0 to 1, such as 0.001")
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
        """The policies of all views, the small ones last."""
        return (*self.policies, *[self.small_view] * self.small_views)


# What may differ between a run and its resumption: it changes where and how fast the run goes, not what it computes.
_FILES = ("data.train", "data.val", "data.source", "data.workers", "data.max_corrupt")
RESUMABLE = ("run", "max_steps", "log", "checkpoint", *_FILES, "compile", "cuda_graphs", "joint_views")


class UnknownMethod(UsageError):
    """A method that neither this package nor a recipe that was read has."""


def to_dict(config: Any) -> Any:
    """The configuration as JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        kinds: dict[type, str] = {method: name for name, method in METHODS.items()}
        return {"kind": kinds[type(config)], **values} if type(config) in kinds else values
    if isinstance(config, tuple):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """The configuration that `to_dict` gave; UsageError for a field that this version does not have."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})  # type: ignore[arg-type]
    if unknown:
        raise UsageError(f"{cls.__name__} has no {', '.join(unknown)}; was the file written by another version?")
    return cls(**{name: _restore(hints[name], value) for name, value in values.items()})


def _restore(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        if isinstance(value, dict) and "kind" in value:
            if value["kind"] not in METHODS:
                known = ", ".join(METHODS)
                raise UnknownMethod(
                    f"unknown method {value['kind']}; known: {known}; pass --recipe with the file that has it"
                )
            kind, value = value["kind"], {name: v for name, v in value.items() if name != "kind"}
            return from_dict(METHODS[kind], value)
        kinds = [h for h in typing.get_args(hint) if h is not type(None)]
        hint = next(h for h in kinds if not isinstance(value, list) or typing.get_origin(h) is tuple)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if hint is Path:
        return Path(value)
    if isinstance(value, list):
        return tuple(_restore(typing.get_args(hint)[0], item) for item in value)
    return value


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(option, old, new) wherever two `to_dict` results differ in what the run computes."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(old.keys() | new.keys()):
        option, a, b = prefix + name, old.get(name), new.get(name)
        if option in RESUMABLE:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, option + ".")
        elif a != b:
            found.append((option.replace("_", "-"), a, b))
    return found
