"""Feature extraction with a backbone while it trains, divided among the processes.

Shape suffixes: V views, B batch, C channels, H W, N samples, n those of this process, D features.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy, augment, sample_params

from ..data.loader import Loader
from ..distributed import World, gather_rows, max_over_processes, sum_over_processes, world_size

BATCH = 256  # images of a forward pass


class Share(NamedTuple):
    """The features of this process's samples, on its device.

    features_nVD: float32, not normalised. ids_n: int64 sample ids. counts: samples of each process, in rank order; they
    are consecutive parts of all samples.
    """

    features_nVD: Tensor
    ids_n: Tensor
    counts: tuple[int, ...]

    def gathered(self) -> tuple[Tensor, Tensor]:
        """The features [N, V, D] and ids [N] of all samples, on every process; a collective call."""
        return gather_rows(self.features_nVD, self.counts), gather_rows(self.ids_n, self.counts)

    def first(self, count: int) -> Tensor:
        """The features of the first `count` samples of all, on every process; a collective call."""
        ends = np.minimum(np.cumsum(self.counts), count)
        counts = np.diff(ends, prepend=0).tolist()
        own = counts[dist.get_rank()] if world_size() > 1 else counts[0]
        return gather_rows(self.features_nVD[:own], counts)


@torch.no_grad()
def extract(
    backbone: nn.Module,
    loader: Loader,
    ids_N: NDArray[np.int64],
    *,
    world: World,
    policies: Sequence[ViewPolicy],
    seed: int = 0,
    channels_last: bool = True,
    **options: Any,
) -> Share:
    """Features of views of samples, each process its share; a collective call.

    The views depend on the seed, the sample and the number of the view. Batches are the same on any number of
    processes, and so are the features up to the order of rounding in a convolution.
    backbone: images [B, 3, H, W] to features [B, D], in evaluation mode, see `evaluating`. ids_N: int64 sample ids.
    policies: one per view. seed: of the views, at epoch 0. channels_last: memory format of the images.
    options: of `augment`, such as mean and std. Raises RunError on all processes for too many corrupt samples.
    """
    size, views = policies[0].size, len(policies)
    batches = np.split(ids_N, range(per := max(1, BATCH // views), len(ids_N), per)) if len(ids_N) else []
    places = [len(batches) * rank // world.size for rank in range(world.size + 1)]
    counts = tuple(sum(map(len, batches[a:b])) for a, b in itertools.pairwise(places))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    features, ids = [], []
    with closing(loader.batches_of(batches[places[world.rank] : places[world.rank + 1]])) as own:
        for photos in own:
            params_VBP = sample_params(photos.ids_B, photos.sizes_B2, tuple(policies), seed=seed, epoch=0)
            x_VBCHW = augment(photos.pixels, photos.offsets_B, photos.sizes_B2, params_VBP, size=size, **options)
            f_ND = backbone(x_VBCHW.flatten(0, 1).contiguous(memory_format=layout)).float()
            features.append(f_ND.unflatten(0, (views, -1)).transpose(0, 1))
            ids.append(photos.ids_B.clone())
    corrupt, width = torch.tensor([loader.corrupt, features[0].shape[2] if features else 0], device=world.device)
    loader.check_corrupt(int(sum_over_processes(corrupt)))
    width = int(max_over_processes(width))
    if not features:
        features, ids = (
            [torch.zeros(0, views, width, device=world.device)],
            [torch.zeros(0, device=world.device).long()],
        )
    return Share(torch.cat(features), torch.cat(ids), counts)


@contextlib.contextmanager
def evaluating(backbone: nn.Module) -> Iterator[None]:
    """Context manager in which a backbone is in evaluation mode, with rank 0's buffers on all processes.

    The running statistics of batch norm that is not synchronised differ between processes. Products of matrices are in
    float32, whatever training uses, so that the scores of runs can be compared. Mode, buffers and precision are
    restored.
    """
    was_training, precision = backbone.training, torch.get_float32_matmul_precision()
    own = [buffer.clone() for buffer in backbone.buffers()] if world_size() > 1 else []
    backbone.eval()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            for buffer in backbone.buffers() if own else ():
                dist.broadcast(buffer, 0)
        yield
    finally:
        backbone.train(was_training)
        torch.set_float32_matmul_precision(precision)
        with torch.no_grad():
            for buffer, value in zip(backbone.buffers() if own else (), own, strict=True):
                buffer.copy_(value)
