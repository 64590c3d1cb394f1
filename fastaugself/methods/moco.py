"""MoCo v2 (Chen 2020, arXiv 2003.04297; He 2020, arXiv 1911.05722).

Shape suffixes: V views, B batch, C channels, H W, D features, E embedding, K queue.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import infonce

from ..errors import UsageError
from ..models.heads import mlp
from ..training.distributed import all_gather
from .base import Output


@dataclass(frozen=True)
class MoCo:
    """MoCo v2: a query against the key of the same photo and a queue of earlier keys."""

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
    queue_source: Literal["key", "query"] = "key"
    """What enters the queue: keys (the method), or queries (a slip of AugSelf's and CASSLE's code that their
    published MoCo rows carry)."""

    def __post_init__(self) -> None:
        if self.queue < 1:
            raise UsageError(f"--method.queue must be at least 1, got {self.queue}")
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"--method.momentum must be in [0, 1], got {self.momentum}")
        if self.temperature <= 0:
            raise UsageError(f"--method.temperature must be above 0, got {self.temperature}")


class MoCoMethod(nn.Module):
    """Query encoder, momentum key encoder and queue."""

    queue_KE: Tensor
    pointer: Tensor

    def __init__(self, config: MoCo, backbone: nn.Module, num_features: int, *, sync: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = mlp([num_features, num_features, config.dim], hidden_norm=config.projector_norm, sync=sync)
        self.key_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue_KE", F.normalize(torch.randn(config.queue, config.dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forward(self, x_VBCHW: Tensor) -> Output:
        f1_BD = self.backbone(x_VBCHW[0])
        q_BE = F.normalize(self.projector(f1_BD).float(), dim=1)
        with torch.no_grad():
            f2_BD = self.key_backbone(x_VBCHW[1])
            k_BE = F.normalize(self.key_projector(f2_BD).float(), dim=1)
        loss = infonce(q_BE, k_BE, self.queue_KE, self.config.temperature).mean()
        enqueued_BE = k_BE if self.config.queue_source == "key" else q_BE.detach()
        return Output(loss, (f1_BD, f2_BD), (enqueued_BE,))

    @torch.no_grad()
    def after_step(self, carry: tuple[Tensor, ...]) -> None:
        """Moves the key encoder towards the query encoder (parameters, not batch-norm buffers) and fills the queue."""
        keys: list[Tensor] = [*self.key_backbone.parameters(), *self.key_projector.parameters()]
        queries: list[Tensor] = [*self.backbone.parameters(), *self.projector.parameters()]
        torch._foreach_lerp_(keys, queries, 1 - self.config.momentum)
        entries_BE = all_gather(carry[0]).to(self.queue_KE.dtype)
        slots_B = (self.pointer + torch.arange(len(entries_BE), device=entries_BE.device)) % len(self.queue_KE)
        self.queue_KE.index_copy_(0, slots_B, entries_BE)
        self.pointer.add_(len(entries_BE)).remainder_(len(self.queue_KE))
