"""MoCo v2 (Chen 2020, arXiv 2003.04297; He 2020, arXiv 1911.05722).

Shape suffixes: V views, B batch, C channels, H W, D features, E embedding, K queue.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastaugself_kernels import infonce

from ..errors import UsageError
from ..training.distributed import all_gather, rank, world_size
from .base import Method, Options, Output, Parts, Views, at_least_one
from .cassle import Projector
from .momentum import follow, follower


@dataclass(frozen=True)
class MoCo(Options):
    """MoCo v2: a query against the key of the same photo and a queue of earlier keys."""

    title = "MoCo v2"

    queue: int = 65_536
    """Keys in the queue; a multiple of the batch size."""
    dim: int = 128
    """Width of the embedding."""
    momentum: float = 0.999
    """Share of itself that the key encoder keeps at each step."""
    temperature: float = 0.2
    """Temperature of the InfoNCE loss."""
    projector_norm: bool = False
    """Batch norm inside the projector: not in MoCo v2, but in AugSelf's and CASSLE's."""
    shuffle: bool = False
    """Mix the keys' images among the processes, or the groups of --backbone.batch-norm split, before the key encoder,
    so that batch statistics do not tell which key is a query's own. Needs neither with synchronised batch norm."""
    queue_source: Literal["key", "query"] = "key"
    """What enters the queue: keys (the method), or queries (a slip of AugSelf's and CASSLE's code that their
    published MoCo rows carry)."""

    def __post_init__(self) -> None:
        at_least_one(self, "queue", "dim")
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"--method.momentum must be in [0, 1], got {self.momentum}")
        if self.temperature <= 0:
            raise UsageError(f"--method.temperature must be above 0, got {self.temperature}")

    def check(self, batch_size: int) -> None:
        """Refuses a queue that batches do not fill evenly."""
        if self.queue % batch_size:
            raise UsageError(
                f"--method.queue {self.queue} must be a multiple of --batch-size {batch_size}; "
                f"pass --method.queue {max(1, self.queue // batch_size) * batch_size}"
            )

    def build(self, parts: Parts) -> "MoCoMethod":
        return MoCoMethod(self, parts)


class MoCoMethod(Method):
    """Query encoder, momentum key encoder and queue."""

    separable = True
    queue_KE: Tensor
    pointer: Tensor
    shuffles: Tensor

    def __init__(self, config: MoCo, parts: Parts) -> None:
        super().__init__()
        self.config = config
        self.backbone = parts.backbone
        self.projector = Projector(
            [parts.num_features, parts.num_features, config.dim],
            cassle=parts.cassle,
            hidden_norm=config.projector_norm,
            sync=parts.sync,
        )
        self.key_backbone = follower(self.backbone)
        self.key_projector = follower(self.projector)
        self.register_buffer("queue_KE", F.normalize(torch.randn(config.queue, config.dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        if config.shuffle:
            self.register_buffer("shuffles", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views) -> Output:
        f1_BD = self.backbone(views.x_VBCHW[0])
        q_BE = F.normalize(self.projector(f1_BD, views.omega(0)).float(), dim=1)
        with torch.no_grad():
            f2_BD = self._shuffled(views.x_VBCHW[1]) if self.config.shuffle else self.key_backbone(views.x_VBCHW[1])
            k_BE = F.normalize(self.key_projector(f2_BD, views.omega(1)).float(), dim=1)
        loss = infonce(q_BE, k_BE, self.queue_KE, self.config.temperature).mean()
        enqueued_BE = k_BE if self.config.queue_source == "key" else q_BE.detach()
        return Output(loss, (f1_BD, f2_BD), (enqueued_BE,))

    def _shuffled(self, x_BCHW: Tensor) -> Tensor:
        """Key features of images that changed places among all processes for the encoding (He 2020, section 3.3)."""
        x_GCHW = all_gather(x_BCHW)
        order_G = permutation(len(x_GCHW), self.shuffles)
        own_B = order_G.chunk(world_size())[rank()]
        last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        f_GD = all_gather(self.key_backbone(x_GCHW[own_B].contiguous(memory_format=layout)))
        return f_GD[torch.argsort(order_G)].chunk(world_size())[rank()]

    @torch.no_grad()
    def after_step(self, carry: tuple[Tensor, ...], progress: float) -> None:
        """Moves the key encoder towards the query encoder and fills the queue."""
        followers, leaders = [self.key_backbone, self.key_projector], [self.backbone, self.projector]
        follow(followers, leaders, self.config.momentum)
        entries_BE = all_gather(carry[0]).to(self.queue_KE.dtype)
        slots_B = (self.pointer + torch.arange(len(entries_BE), device=entries_BE.device)) % len(self.queue_KE)
        self.queue_KE.index_copy_(0, slots_B, entries_BE)
        self.pointer.add_(len(entries_BE)).remainder_(len(self.queue_KE))
        if self.config.shuffle:
            self.shuffles.add_(1)


def permutation(count: int, number: Tensor) -> Tensor:
    """Permutation `number` (int64 scalar, on its device) of 0 .. count - 1, the same on every process.

    The order of the positions' hashes (the 64-bit finaliser of MurmurHash3 with signed shifts); nothing waits for the
    device.
    """
    x = torch.arange(count, device=number.device) + number * count + 1
    for factor in (-49064778989728563, -4265267296055464877):
        x = (x ^ (x >> 33)) * factor
    return torch.argsort(x ^ (x >> 33), stable=True)
