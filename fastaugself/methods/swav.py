"""SwAV (Caron 2020, arXiv 2006.09882).

Shape suffixes: V views, B batch, E embedding, K prototypes, L queue.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_gather, max_over_processes, rank, sum_over_processes, world_size
from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views, above_zero, at_least_one


@dataclass(frozen=True)
class SwAV(MethodConfig):
    """SwAV: predict the prototype assignment of one view from the other; assignments are balanced over the batch."""

    title = "SwAV"
    multi_crop = True

    dim: int = 128
    """Width of the embedding."""
    hidden: int = 2048
    """Width of the projector's hidden layer."""
    prototypes: int = 3000
    """Number of prototypes; AugSelf uses 100."""
    temperature: float = 0.1
    """Temperature of the softmax over prototypes."""
    epsilon: float = 0.05
    """Entropy regularisation of the Sinkhorn-Knopp assignments."""
    iterations: int = 3
    """Iterations of the Sinkhorn-Knopp balancing."""
    freeze_steps: int = 5005
    """Number of initial steps with frozen prototypes; AugSelf's code has 409 on STL10."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the two swapped losses are combined: their mean (SwAV), or their sum, as in AugSelf's code; with the mean,
    AugSelf's losses weigh twice as much."""
    gather: bool = True
    """Balance assignments over all processes; AugSelf's code balances within each process."""
    queue: int = 0
    """Size of the queue of earlier embeddings, a multiple of the batch size; 3840 in the paper, 0 = no queue."""
    queue_start: float = 0.075
    """Fraction of training after which the queue is used; 15 of 200 epochs in the paper."""

    def __post_init__(self) -> None:
        above_zero(self, "temperature", "epsilon")
        at_least_one(self, "dim", "hidden", "iterations")
        if self.prototypes < 2:
            raise UsageError(
                f"--method.prototypes must be at least 2, got {self.prototypes}; pass "
                f"--method.prototypes {SwAV.prototypes}"
            )
        if self.queue < 0:
            raise UsageError(f"--method.queue must be at least 0, got {self.queue}; pass --method.queue 0")
        if self.freeze_steps < 0:
            raise UsageError(
                f"--method.freeze-steps must be at least 0, got {self.freeze_steps}; pass --method.freeze-steps 0"
            )
        if not 0 <= self.queue_start <= 1:
            raise UsageError(
                f"--method.queue-start must be in [0, 1], got {self.queue_start}; pass "
                f"--method.queue-start {SwAV.queue_start}"
            )

    def check(self, batch_size: int) -> None:
        """Raises UsageError if the queue size is not a multiple of the global batch size."""
        if self.queue % batch_size:
            raise UsageError(
                f"--method.queue {self.queue} must be a multiple of --batch-size {batch_size}; "
                f"pass --method.queue {max(1, self.queue // batch_size) * batch_size}, or --method.queue 0"
            )

    def build(self, context: BuildContext) -> "SwAVMethod":
        return SwAVMethod(self, context)


class SwAVMethod(Method):
    """Encoder, projector and prototypes."""

    queue_2LE: Tensor

    def __init__(self, config: SwAV, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        widths = [context.num_features, config.hidden, config.dim]
        self.projector = context.projector(widths)
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)
        self.register_buffer("queue_2LE", torch.zeros(2, config.queue, config.dim))
        self.filled = 0  # number of queue entries that hold embeddings
        self.full = False  # used in forward; changes once, so torch.compile recompiles once
        self.normalize_prototypes()

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """L2-normalises the prototypes."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        embeddings = [F.normalize(self.projector(f, views.condition(v)).float(), dim=1) for v, f in enumerate(features)]
        scores = [self._scores(z) for z in embeddings]
        loss = scores[0].new_zeros(())
        for assigned in (0, 1):
            target_BK = self._assign(assigned, scores[assigned].detach())
            others = [v for v in range(len(scores)) if v != assigned]
            terms = [-(target_BK * F.log_softmax(scores[v] / self.config.temperature, 1)).sum(1).mean() for v in others]
            loss = loss + sum(terms) / len(terms)
        if self.config.reduction == "mean":
            loss = loss / 2
        return Output(loss, (features[0], features[1]), (embeddings[0].detach(), embeddings[1].detach()))

    def _scores(self, z_BE: Tensor) -> Tensor:
        """Similarities [B, K] of normalised embeddings and prototypes, float32."""
        with torch.autocast(z_BE.device.type, enabled=False):  # autocast would round them
            scores_BK: Tensor = self.prototypes(z_BE)
        return scores_BK

    @torch.no_grad()
    def _assign(self, view: int, scores_BK: Tensor) -> Tensor:
        B, config = len(scores_BK), self.config
        if self.full:
            # Every process holds the whole queue but contributes one chunk of it, so that every entry counts once.
            chunk_LE = self.queue_2LE[view].chunk(world_size())[rank()]
            scores_BK = torch.cat([scores_BK, self._scores(chunk_LE)])
        return sinkhorn(scores_BK, config.epsilon, config.iterations, gather=config.gather)[:B]

    def after_backward(self, global_step: int) -> None:
        """Freezes the prototypes during the first `freeze_steps` steps."""
        if global_step < self.config.freeze_steps:
            self.prototypes.weight.grad = None

    def after_optimizer_step(self) -> None:
        """L2-normalises the prototypes."""
        self.normalize_prototypes()

    @torch.no_grad()
    def update_queue(self, queue_update: tuple[Tensor, ...], progress: float) -> None:
        """Enqueues the newest embeddings of both views."""
        if self.config.queue and progress >= self.config.queue_start:
            newest_2BE = torch.stack([all_gather(embeddings) for embeddings in queue_update])
            self.queue_2LE.copy_(torch.cat([newest_2BE, self.queue_2LE], 1)[:, : self.config.queue])
            self.set_extra_state(min(self.config.queue, self.filled + newest_2BE.shape[1]))

    def get_extra_state(self) -> int:
        return self.filled

    def set_extra_state(self, state: int) -> None:
        self.filled, self.full = state, 0 < self.config.queue == state


@torch.no_grad()
def sinkhorn(scores_BK: Tensor, epsilon: float, iterations: int, *, gather: bool = True) -> Tensor:
    """Sinkhorn-Knopp assignments [B, K] that use all prototypes equally; rows sum to 1 (section 3.1).

    scores_BK: similarities of samples and prototypes. epsilon: entropy regularisation. gather: balance over the samples
    of all processes instead of each process separately.
    """
    processes = world_size() if gather else 1

    def sum_all(x: Tensor) -> Tensor:
        return sum_over_processes(x) if gather else x

    highest = max_over_processes(scores_BK.max()) if gather else scores_BK.max()
    Q_BK = torch.exp((scores_BK.double() - highest.double()) / epsilon)
    count, K = len(Q_BK) * processes, Q_BK.shape[1]
    Q_BK /= sum_all(Q_BK.sum())
    for _ in range(iterations):
        Q_BK /= sum_all(Q_BK.sum(0)) * K
        Q_BK /= Q_BK.sum(1, keepdim=True) * count
    return (Q_BK * count).float()
