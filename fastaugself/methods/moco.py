"""MoCo v2 (Chen 2020, arXiv 2003.04297; He 2020, arXiv 1911.05722).

Shape suffixes: V views, B batch, C channels, H W, D features, E embedding, K queue.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import infonce

from ..distributed import all_gather, rank, world_size
from ..errors import UsageError
from ..models.ema import ema_copy, ema_update, scheduled_momentum
from .base import BuildContext, Method, MethodConfig, Output, Views, above_zero, at_least_one, in_unit_interval
from .hashing import permutation
from .parts import check_split, repeated
from .queue import check_queue, enqueue


@dataclass(frozen=True)
class MoCo(MethodConfig):
    """MoCo v2: InfoNCE of a query against its key from the momentum encoder and a queue of earlier keys."""

    title = "MoCo v2"
    multi_crop = True
    per_sample_loss = True

    queue: int = 65_536
    """Number of keys in the queue, a multiple of the batch size."""
    dim: int = 128
    """Width of the embedding."""
    momentum: float = 0.999
    """EMA momentum of the key encoder."""
    momentum_schedule: bool = False
    """Move the momentum to --method.momentum-end with a cosine schedule; off: constant momentum."""
    momentum_end: float = 1.0
    """EMA momentum at the end of training, with --method.momentum-schedule."""
    temperature: float = 0.2
    """Temperature of the InfoNCE loss."""
    projector_norm: bool = False
    """Batch norm in the projector: off in MoCo v2, on in AugSelf's and CASSLE's code."""
    shuffle: bool = False
    """Shuffling batch norm: permute the images over all processes before the key encoder, so that batch statistics do
    not leak which key belongs to which query. Not needed with synchronised batch norm."""
    split: int = 1
    """Fast-MoCo: cut the query's view in split x split parts, encode each, and let the mean of every pair be a query;
    2 gives six queries for the cost of one. 1 = off (this project's ResNets only)."""
    queue_source: Literal["key", "query"] = "key"
    """Enqueue keys (MoCo), or queries, as a bug in AugSelf's and CASSLE's code does: their MoCo results have it."""

    def __post_init__(self) -> None:
        at_least_one(self, "queue", "dim")
        check_split(self.split)
        in_unit_interval(self, "momentum", "momentum_end")
        above_zero(self, "temperature")
        if self.split > 1 and self.queue_source == "query":
            raise UsageError(
                f"--method.split {self.split} gives several queries of an image, so they cannot be enqueued; pass "
                "--method.queue-source key"
            )

    def check(self, batch_size: int) -> None:
        """Raises UsageError if the queue size is not a multiple of the global batch size."""
        check_queue(self.queue, batch_size)

    def build(self, context: BuildContext) -> "MoCoMethod":
        return MoCoMethod(self, context)


class MoCoMethod(Method):
    """Query encoder, momentum key encoder and queue."""

    encodes_both_views = False
    queue_KE: Tensor
    pointer: Tensor
    shuffles: Tensor

    def __init__(self, config: MoCo, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        self.projector = context.projector(
            [context.num_features, context.num_features, config.dim],
            hidden_norm=config.projector_norm,
        )
        self.key_backbone = ema_copy(self.backbone)
        self.key_projector = ema_copy(self.projector)
        self.register_buffer("queue_KE", F.normalize(torch.randn(config.queue, config.dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        if config.shuffle:
            self.register_buffer("shuffles", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views) -> Output:
        f1_BD, queried_SD = self.encode_queries(views, 0, self.config.split)
        queried = {0: queried_SD} | dict(enumerate(self.encode_local(self.backbone, views), 2))
        queries = [
            F.normalize(self.projector(f, repeated(views.condition(v), len(f))).float(), dim=1)
            for v, f in queried.items()
        ]
        with torch.no_grad():
            if self.config.shuffle:
                f2_BD = self._encode_shuffled(views.x_VBCHW[1])
            else:
                f2_BD = self.encode_view(self.key_backbone, views, 1)
            k_BE = F.normalize(self.key_projector(f2_BD, views.condition(1)).float(), dim=1)
        # The key encoder sees view 2 only, so that is the target of view 1 and of every local crop.
        lengths = [len(q) for q in queries]
        keys_SE = k_BE.repeat(sum(lengths) // len(k_BE), 1)
        loss_S = infonce(torch.cat(queries), keys_SE, self.queue_KE, self.config.temperature)
        # The queries of parts weigh as much together as those of a local crop.
        loss = torch.stack([part.mean() for part in loss_S.split(lengths)]).mean()
        enqueued_BE = k_BE if self.config.queue_source == "key" else queries[0].detach()
        return Output(loss, (f1_BD, f2_BD), (enqueued_BE,))

    def _encode_shuffled(self, x_BCHW: Tensor) -> Tensor:
        """Key features with shuffling batch norm over all processes (He 2020, section 3.3)."""
        x_GCHW = all_gather(x_BCHW)
        order_G = permutation(len(x_GCHW), self.shuffles)
        own_B = order_G.chunk(world_size())[rank()]
        last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        f_GD = all_gather(self.key_backbone(x_GCHW[own_B].contiguous(memory_format=layout)))
        return f_GD[torch.argsort(order_G)].chunk(world_size())[rank()]

    @property
    def momentum_backbone(self) -> nn.Module:
        """The EMA copy of the encoder."""
        return self.key_backbone

    def update_ema(self, progress: float) -> None:
        """Updates the key encoder."""
        momentum = scheduled_momentum(self.config, progress)
        ema_update([self.key_backbone, self.key_projector], [self.backbone, self.projector], momentum)

    @torch.no_grad()
    def update_queue(self, queue_update: tuple[Tensor, ...], progress: float) -> None:
        """Enqueues the keys of all processes."""
        enqueue(self.queue_KE, self.pointer, queue_update[0])
        if self.config.shuffle:
            self.shuffles.add_(1)
