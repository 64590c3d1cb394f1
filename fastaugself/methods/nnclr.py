"""NNCLR (Dwibedi 2021, arXiv 2104.14548).

Shape suffixes: B batch of this process, G batch of all processes, E embedding, K queue.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import gather_with_gradient, rank
from .base import BuildContext, Method, MethodConfig, Output, Views, above_zero, at_least_one, mean_over_pairs
from .queue import check_queue, enqueue


@dataclass(frozen=True)
class NNCLR(MethodConfig):
    """NNCLR: the positive of a view is the nearest neighbour of the other view among earlier embeddings."""

    title = "NNCLR"
    multi_crop = True
    has_predictor = True

    queue: int = 98_304
    """Number of embeddings in the queue (support set), a multiple of the batch size."""
    dim: int = 256
    """Width of the embedding."""
    hidden: int = 2048
    """Width of the projector's two hidden layers."""
    predictor_hidden: int = 4096
    """Width of the predictor's hidden layer."""
    temperature: float = 0.1
    """Temperature of the loss."""

    def __post_init__(self) -> None:
        at_least_one(self, "queue", "dim", "hidden", "predictor_hidden")
        above_zero(self, "temperature")

    def check(self, batch_size: int) -> None:
        """Raises UsageError if the queue size is not a multiple of the global batch size."""
        check_queue(self.queue, batch_size)

    def build(self, context: BuildContext) -> "NNCLRMethod":
        return NNCLRMethod(self, context)


class NNCLRMethod(Method):
    """Encoder, projector, predictor and queue."""

    queue_KE: Tensor
    pointer: Tensor

    def __init__(self, config: NNCLR, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config
        widths = [context.num_features, config.hidden, config.hidden, config.dim]
        self.projector = context.projector(widths, last_norm="affine")
        self.predictor = context.predictor([config.dim, config.predictor_hidden, config.dim], sync=context.sync)
        self.register_buffer("queue_KE", F.normalize(torch.randn(config.queue, config.dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forward(self, views: Views) -> Output:
        features = self.encode_crops(views)
        z = [self.projector(f, views.condition(v)) for v, f in enumerate(features)]
        p = [self.predictor(z_BE, views.params_VBP, views.sizes_B2, v) for v, z_BE in enumerate(z)]
        n = [nearest(z_BE, self.queue_KE) for z_BE in z[:2]]
        loss = mean_over_pairs(lambda a, b: neighbour_loss(n[a], p[b], self.config.temperature), len(p))
        return Output(loss, (features[0], features[1]), (F.normalize(z[0].detach().float(), dim=1),))

    def update_queue(self, queue_update: tuple[Tensor, ...], progress: float) -> None:
        """Enqueues the embeddings of the first view."""
        enqueue(self.queue_KE, self.pointer, queue_update[0])


@torch.no_grad()
def nearest(z_BE: Tensor, queue_KE: Tensor) -> Tensor:
    """The entry [B, E] of the queue with the highest cosine similarity to each embedding (equation 2).

    queue_KE: L2-normalised; the length of z_BE does not matter.
    """
    with torch.autocast(z_BE.device.type, enabled=False):  # autocast would round the similarities
        return queue_KE[(z_BE.float() @ queue_KE.T).argmax(1)]


def neighbour_loss(n_BE: Tensor, p_BE: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each neighbour and its own prediction against the predictions of all processes (equation 3).

    n_BE: L2-normalised neighbours of one view. p_BE: predictions of the other view, not normalised. Returns the mean
    over the batch of this process.
    """
    p_GE = gather_with_gradient(F.normalize(p_BE.float(), dim=1))
    with torch.autocast(p_BE.device.type, enabled=False):
        logits_BG = n_BE @ p_GE.T / temperature
    own_B = torch.arange(len(n_BE), device=n_BE.device) + rank() * len(n_BE)
    return F.cross_entropy(logits_BG, own_B)
