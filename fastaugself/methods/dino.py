"""DINO (Caron 2021, arXiv 2104.14294).

Shape suffixes: B batch, S samples of several crops, E embedding, K prototypes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import mean_over_processes
from ..errors import UsageError
from ..models.ema import ema_copy, ema_update, scheduled_momentum
from ..models.heads import Projector
from .base import BuildContext, Method, MethodConfig, Output, Views, at_least_one, mean_over_pairs

MOST_PROTOTYPES = 1 << 20


@dataclass(frozen=True)
class DINO(MethodConfig):
    """DINO: every crop predicts the centred and sharpened prototype scores of an EMA teacher on each global view."""

    title = "DINO"
    multi_crop = True
    per_sample_loss = True

    dim: int = 256
    """Width of the projection, which is L2-normalised."""
    hidden: int = 2048
    """Width of the projector's two hidden layers."""
    prototypes: int = 65_536
    """Number of prototypes."""
    projector_norm: bool = False
    """Batch norm in the projector's hidden layers."""
    fixed_length: bool = True
    """Keep the length of the prototypes at 1; off for ViT-S in the paper's longer runs, where it is learned."""
    temperature: float = 0.1
    """Temperature of the student."""
    teacher_temperature: float = 0.04
    """Temperature of the teacher, after its warm-up; above 0.07 training is unstable, say the authors."""
    teacher_temperature_start: float = 0.04
    """Temperature of the teacher at the start of its warm-up."""
    teacher_warmup: float = 0.0
    """Fraction of training during which the teacher's temperature rises linearly."""
    center_momentum: float = 0.9
    """EMA momentum of the centre of the teacher's scores."""
    momentum: float = 0.996
    """Initial EMA momentum of the teacher. The authors advise 0.9995 for a batch size of 256."""
    momentum_schedule: bool = True
    """Move the momentum to --method.momentum-end with a cosine schedule; off: constant momentum."""
    momentum_end: float = 1.0
    """EMA momentum at the end of training, with --method.momentum-schedule."""
    freeze_steps: int = 1251
    """Number of initial steps with frozen prototypes: in the paper the first epoch, 1251 steps at batch size 1024."""

    def __post_init__(self) -> None:
        at_least_one(self, "dim", "hidden")
        for name in ("temperature", "teacher_temperature", "teacher_temperature_start"):
            self._require(getattr(self, name) > 0, name, "above 0")
        for name in ("teacher_warmup", "center_momentum", "momentum", "momentum_end"):
            self._require(0 <= getattr(self, name) <= 1, name, "in [0, 1]")
        self._require(self.freeze_steps >= 0, "freeze_steps", "at least 0")
        self._require(2 <= self.prototypes <= MOST_PROTOTYPES, "prototypes", f"from 2 to {MOST_PROTOTYPES}")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            option = f"--method.{name.replace('_', '-')}"
            raise UsageError(f"{option} must be {rule}, got {getattr(self, name)}; pass {option} {getattr(DINO, name)}")

    def build(self, context: BuildContext) -> "DINOMethod":
        return DINOMethod(self, context)


class Prototypes(nn.Module):
    """Scores of embeddings: the products with unit-length prototypes, times the length of each prototype."""

    def __init__(self, dim: int, prototypes: int, *, fixed_length: bool) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, prototypes, bias=False).weight
        self.length_K = None if fixed_length else nn.Parameter(torch.ones(prototypes))

    def forward(self, z_BE: Tensor) -> Tensor:
        """Scores [B, K] in float32 of embeddings that need not be normalised."""
        with torch.autocast(z_BE.device.type, enabled=False):  # autocast would round the scores
            scores_BK = F.normalize(z_BE.float(), dim=1) @ F.normalize(self.weight, dim=1).T
        return scores_BK if self.length_K is None else scores_BK * self.length_K


class DINOMethod(Method):
    """Student encoder, projector and prototypes; their EMA, the teacher; and the centre of the teacher's scores."""

    center_K: Tensor
    teacher_temperature: Tensor

    def __init__(self, config: DINO, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        widths = [context.num_features, config.hidden, config.hidden, config.dim]
        self.projector = context.projector(widths, hidden_norm=config.projector_norm, activation="gelu")
        initialize(self.projector)
        self.prototypes = Prototypes(config.dim, config.prototypes, fixed_length=config.fixed_length)
        self.teacher_backbone = ema_copy(self.backbone)
        self.teacher_projector = ema_copy(self.projector)
        self.teacher_prototypes = ema_copy(self.prototypes)
        self.register_buffer("center_K", torch.zeros(config.prototypes))
        self.register_buffer("teacher_temperature", torch.tensor(self.temperature_at(0.0)))

    def temperature_at(self, progress: float) -> float:
        """The teacher's temperature. progress: fraction of training that is done."""
        config = self.config
        if progress >= config.teacher_warmup:
            return config.teacher_temperature
        start = config.teacher_temperature_start
        return start + (config.teacher_temperature - start) * progress / config.teacher_warmup

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        embeddings = [self.projector(f, views.condition(v)) for v, f in enumerate(features)]
        # One product for all crops: each call keeps a normalised copy of the prototypes for the backward pass.
        student = self.prototypes(torch.cat(embeddings)).chunk(len(embeddings))
        with torch.no_grad():
            targets = self.encode(self.teacher_backbone, views)
            projected = [self.teacher_projector(f, views.condition(v)) for v, f in enumerate(targets)]
            scores_SK = self.teacher_prototypes(torch.cat(projected))
        teacher = scores_SK.chunk(2)
        loss = self_distillation(student, teacher, self.center_K, self.config.temperature, self.teacher_temperature)
        return Output(loss, (features[0], features[1]), (scores_SK.mean(0, keepdim=True),))

    @property
    def momentum_backbone(self) -> nn.Module:
        """The EMA copy of the encoder."""
        return self.teacher_backbone

    def after_backward(self, global_step: int) -> None:
        """Freezes the prototypes during the first `freeze_steps` steps."""
        if global_step < self.config.freeze_steps:
            for parameter in self.prototypes.parameters():
                parameter.grad = None

    @torch.no_grad()
    def update_ema(self, progress: float) -> None:
        """Updates the teacher and its temperature."""
        teacher = [self.teacher_backbone, self.teacher_projector, self.teacher_prototypes]
        student = [self.backbone, self.projector, self.prototypes]
        ema_update(teacher, student, scheduled_momentum(self.config, progress))
        self.teacher_temperature.fill_(self.temperature_at(progress))

    @torch.no_grad()
    def update_queue(self, queue_update: tuple[Tensor, ...], progress: float) -> None:
        """Moves the centre towards the mean of the teacher's scores over all processes (equation 4)."""
        mean_K = mean_over_processes(queue_update[0].mean(0))
        self.center_K.lerp_(mean_K, 1 - self.config.center_momentum)


def initialize(projector: Projector) -> None:
    """Initial values of the original code: linear layers normal with a standard deviation of 0.02, biases 0.

    What conditions the projector (CASSLE) and the routers of experts (STAR) keep their own.
    """
    for name in ("hidden", "last", "experts"):
        part = getattr(projector, name, None)
        for module in part.modules() if part is not None else ():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def self_distillation(
    student: Sequence[Tensor], teacher: Sequence[Tensor], center_K: Tensor, temperature: float, sharp: Tensor
) -> Tensor:
    """Cross-entropy of the teacher's global views and the student's other crops, mean over pairs (equation 3).

    student: float32 scores [B, K] of each crop, the global views first. teacher: those of the global views. center_K:
    subtracted from the teacher's scores. temperature: of the student. sharp: temperature of the teacher, a scalar.
    """
    targets = [F.softmax((t - center_K) / sharp, 1) for t in teacher]
    logs = [F.log_softmax(s / temperature, 1) for s in student]
    return mean_over_pairs(lambda a, b: -(targets[a] * logs[b]).sum(1).mean(), len(logs))
