"""Queues of earlier embeddings (MoCo, NNCLR).

Shape suffixes: B entries, E embedding, K queue.
"""

import torch
from torch import Tensor

from ..distributed import all_gather
from ..errors import UsageError


def check_queue(queue: int, batch_size: int) -> None:
    """Raises UsageError if the queue size is not a multiple of the global batch size."""
    if queue % batch_size:
        raise UsageError(
            f"--method.queue {queue} must be a multiple of --batch-size {batch_size}; "
            f"pass --method.queue {max(1, queue // batch_size) * batch_size}"
        )


@torch.no_grad()
def enqueue(queue_KE: Tensor, pointer: Tensor, entries_BE: Tensor) -> None:
    """Replaces the oldest rows of a queue by the entries of all processes, in rank order, without host sync.

    pointer: int64 scalar, the row that comes next; it moves on by the number of entries.
    """
    entries_BE = all_gather(entries_BE).to(queue_KE.dtype)
    slots_B = (pointer + torch.arange(len(entries_BE), device=entries_BE.device)) % len(queue_KE)
    queue_KE.index_copy_(0, slots_B, entries_BE)
    pointer.add_(len(entries_BE)).remainder_(len(queue_KE))
