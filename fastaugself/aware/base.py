"""Interface of the aware objectives: losses that learn from the augmentation parameters, beside any base method.

An objective is options (`ESSL`, a frozen dataclass) and a module (`ESSLObjective`) that returns named losses. The
options declare what the objective needs beyond the two global views and their parameters: further views, rows that
samples share, inner layers. A new objective is one file with both classes (docs/new-objective.md).

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, D features.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self, TypeVar

from torch import Tensor, nn

from fastaugself_kernels import COLUMNS, ViewPolicy

from ..distributed import world_size
from ..errors import UsageError
from ..methods.base import ExtraViews, Method, MethodConfig, Views
from ..models.build import Backbone
from ..models.heads import Projector
from ..models.inner import check_layers


@dataclass(frozen=True)
class Share:
    """Chunks of consecutive samples have the same parameters, in each view its own.

    chunk: samples per chunk; 0 is the whole batch of a process. parts: as for `fastaugself_kernels.share_params`. The
    chunk divides the batch of a process.
    """

    chunk: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class ViewRequest:
    """Further views of every photo of the batch.

    Copies in "rotation" are quarter turns as they are seen, that is counted after the flip.

    policy: from which their parameters are drawn; its size is theirs. count: views per photo. copies: each view is
    made once for each of these values of the column `copied`; all other parameters of the copies are equal. share:
    parameters that samples share. same: parts (as in `Share`) that are equal in all views of a photo. fraction: of the
    photos of the batch, the first ones, at least two. encode: whether the objective gets features of these views from
    the encoder.
    """

    policy: ViewPolicy
    count: int = 1
    copies: tuple[float, ...] = ()
    copied: str = "rotation"
    share: Share | None = None
    same: tuple[str, ...] = ()
    fraction: float = 1.0
    encode: bool = True

    def __post_init__(self) -> None:
        if self.copied not in COLUMNS:
            raise ValueError(f"ViewRequest.copied must be one of {', '.join(COLUMNS)}, got {self.copied!r}")

    def photos(self, batch_size: int) -> int:
        """Number of photos that give these views, of a batch of one process."""
        return min(batch_size, max(2, round(self.fraction * batch_size)))


def unique(requests: Mapping[str, tuple[ViewRequest, ...]]) -> tuple[ViewRequest, ...]:
    """All different requests, in the order of the objectives. requests: by objective."""
    return tuple(dict.fromkeys(request for wanted in requests.values() for request in wanted))


class Extra(NamedTuple):
    """The views of a `ViewRequest`. features_VBD: pooled features, or None if the request does not ask for them."""

    views: ExtraViews
    features_VBD: Tensor | None


class AwareInputs(NamedTuple):
    """The input of an objective.

    features: pooled features [B, D] of the two global views, as in `Output.features`. params_VBP: their parameters,
    float32. sizes_B2: (height, width) of the photos. inner: feature maps [B, C, H, W] of the layers that the objective
    asks for, by name, of each global view. extra: the views that it asks for, in the order of its requests. views: the
    input of the base method. method: the base method, for its encoder, momentum encoder and projector; do not keep it
    as an attribute, or it becomes part of the objective.
    """

    features: tuple[Tensor, Tensor]
    params_VBP: Tensor
    sizes_B2: Tensor
    inner: tuple[dict[str, Tensor], dict[str, Tensor]]
    extra: tuple[Extra, ...]
    views: Views
    method: Method


@dataclass(frozen=True)
class AwareOutput:
    """The output of an objective. losses: scalars by name, not weighted. metrics: scalars to log, by name, detached."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class AwareContext:
    """The arguments from which an objective's module is built.

    method: the base method, already built. num_features: width of the pooled features. policies: of the two global
    views. layer_widths: channels of the inner layers, by name. batch_size: samples per forward pass on one process.
    sync: synchronised batch norm in heads.
    """

    method: Method
    num_features: int
    policies: tuple[ViewPolicy, ViewPolicy]
    layer_widths: dict[str, int] = field(default_factory=dict)
    batch_size: int = 256
    sync: bool = False


@dataclass(frozen=True)
class Setting:
    """What an objective's options are checked against, before any data is opened.

    base_loss: whether the base method's loss is trained too; if not, its projector and predictor are not built.
    batch_size: global batch size. conditioned: whether CASSLE conditions the projector.
    """

    method: MethodConfig
    backbone: Backbone
    policies: tuple[ViewPolicy, ViewPolicy]
    batch_size: int
    base_loss: bool
    conditioned: bool


class AwareConfig:
    """Base class of the options of all objectives; subclasses are frozen dataclasses with `weight` and `only`."""

    name: ClassVar[str] = ""
    """Name on the command line and in config.json; set by `register_aware`."""
    title: ClassVar[str]
    """Display name of the objective."""
    needs_projector: ClassVar[bool] = False
    """Whether the objective uses the base method's projector."""
    fixed_size: ClassVar[bool] = False
    """Whether the views must have one size during the whole run."""
    per_sample_loss: ClassVar[bool] = False
    """Whether the losses are means of per-sample losses, so that gradient accumulation is exact."""

    weight: float
    """Weight of the objective's loss; 0 turns the objective off."""
    only: bool
    """Train on this objective without the base method's loss, and without objectives that are not `only` too."""

    @classmethod
    def off(cls) -> Self:
        """The default options with a weight of 0."""
        return cls(weight=0.0)  # type: ignore[call-arg]

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses by name; those with a weight of 0 are left out, and must not be returned."""
        return {self.name: self.weight} if self.weight > 0 else {}

    def augmentations(self) -> dict[str, str]:
        """What the views have to vary in, each with the option that needs it ("--augself.crop 0.5").

        Names as in `config.aware_checks.varies`: crop, color, flip, blur, grayscale, rotation, solarize.
        """
        return {}

    def requests(self, policies: tuple[ViewPolicy, ViewPolicy]) -> tuple[ViewRequest, ...]:
        """Further views. policies: of the two global views."""
        return ()

    @property
    def share(self) -> Share | None:
        """Parameters that samples share in the two global views."""
        return None

    @property
    def layers(self) -> tuple[str, ...]:
        """Inner layers whose feature maps of the global views it needs, as named by `models.inner.layer_widths`."""
        return ()

    def check(self, setting: Setting) -> None:
        """Raises UsageError if the options do not fit the rest of the configuration."""

    def check_backbone(self, backbone: nn.Module, setting: Setting) -> None:
        """Raises UsageError if the backbone lacks what the objective needs. backbone: on any device, without values."""
        check_layers(backbone, self.layers, f"--{self.name}.layer", f"--{self.name}.weight 0")

    def projector_type(self, inner: Callable[..., Projector]) -> Callable[..., Projector]:
        """The class or function that builds the base method's projector. inner: the one so far."""
        return inner

    def build(self, context: AwareContext) -> "AwareObjective":
        """Builds the objective's module."""
        raise NotImplementedError


AWARE: dict[str, type[AwareConfig]] = {}
"""The options class of each objective, by its name on the command line and in config.json."""

T = TypeVar("T", bound=type[AwareConfig])


def register_aware(name: str) -> Callable[[T], T]:
    """Class decorator that registers the options of an objective under `name` (docs/new-objective.md).

    Every recipe then has the options `--NAME.*`. Raises ValueError if another objective or a part of the configuration
    has this name, or if it cannot be an option.
    """

    def add(options: T) -> T:
        if AWARE.get(name, options).__qualname__ != options.__qualname__:
            raise ValueError(f"the name {name} belongs to {AWARE[name].__qualname__}; register under another name")
        if not re.fullmatch("[a-z][a-z0-9]*", name):
            raise ValueError(f"{name!r} cannot be a name: use lower-case letters and digits, a letter first")
        options.name = name
        AWARE[name] = options
        return options

    return add


class AwareObjective(nn.Module):
    """Base class of the modules of all objectives. config: the options, whose `weights` name the losses."""

    def __init__(self, config: AwareConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The losses of a batch, one for each of `config.weights`."""
        raise NotImplementedError

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """Losses of constant predictions, by name, for views with these parameters; empty if that has no meaning."""
        return {}

    def update_ema(self, method: Method, progress: float) -> None:
        """Updates EMA copies. method: the base method. progress: fraction of the run that is done, in [0, 1]."""


def at_least(options: AwareConfig, least: float, *names: str) -> None:
    """Raises UsageError if one of the named options is below `least`."""
    for name in names:
        if not getattr(options, name) >= least:
            option = f"--{options.name}.{name.replace('_', '-')}"
            default = getattr(type(options), name, least)
            raise UsageError(
                f"{option} must be at least {least:g}, got {getattr(options, name)}; pass {option} {default}"
            )


def above_zero(options: AwareConfig, *names: str) -> None:
    """Raises UsageError if one of the named options is not above 0."""
    for name in names:
        if not getattr(options, name) > 0:
            option = f"--{options.name}.{name.replace('_', '-')}"
            raise UsageError(
                f"{option} must be above 0, got {getattr(options, name)}; pass {option} {getattr(type(options), name)}"
            )


def uniform_contrast(batch_size: int, like: Tensor) -> Tensor:
    """NT-Xent of embeddings that are all equal: log(2N - 1) for a batch of N pairs over all processes.

    batch_size: pairs per process. like: gives the device.
    """
    return like.new_tensor(math.log(2 * batch_size * world_size() - 1))
