"""Top-1 and top-5 hits of classifiers on the photos of a split, divided among processes.

Shape suffixes: H classifiers, B batch, N photos, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.order import epoch_batches
from ..distributed import World, sum_over_processes
from ..probes.intervals import accuracy_score
from .pixels import Color, Filter, normalise, prepare
from .prepare import in_threads
from .results import Row
from .splits import Split

RESIZE = 256 / 224  # shorter side after resizing, relative to the input size, as published
TOP = 5


class Hits(NamedTuple):
    """Whether the label of each photo is the first, or among the first five, of each classifier's answers."""

    top1_HN: NDArray[np.bool_]
    top5_HN: NDArray[np.bool_]

    def of(self, head: int) -> "Hits":
        """Those of one classifier."""
        return Hits(self.top1_HN[head : head + 1], self.top5_HN[head : head + 1])


@dataclass(frozen=True)
class CentreCrops:
    """Preparation of test photos: the shorter side is resized to `resize` pixels, the centre is cropped to `size`."""

    size: int
    resize: int
    filter: Filter
    mean: Color
    std: Color

    def hits(
        self,
        logits: Callable[[Tensor], Tensor],
        split: Split,
        world: World,
        *,
        batch_size: int,
        workers: int = 0,
    ) -> Hits:
        """The hits of `logits`, a function from normalised photos [B, 3, H, W] to [H, B, C]; a collective call."""
        prepared = partial(prepare, size=self.size, resize=self.resize, filter=self.filter)
        mine = [
            ids_B
            for ids_B in epoch_batches(
                len(split), batch_size, rank=world.rank, world=world.size, order="sequential", drop_last=False
            )
            if len(ids_B)
        ]
        opened = in_threads(
            lambda i: prepared(split.images.open(i)), np.concatenate([*mine, np.empty(0, np.int64)]).tolist(),
            workers=workers, ahead=2 * batch_size,
        )  # fmt: skip
        found: Tensor | None = None
        with torch.inference_mode():
            for ids_B in mine:
                x_BHWC = torch.from_numpy(np.stack(list(islice(opened, len(ids_B))))).to(world.device)
                logits_HBC = logits(normalise(x_BHWC, self.mean, self.std))
                best_HBK = logits_HBC.topk(min(TOP, logits_HBC.shape[2]), 2).indices
                right_HBK = best_HBK == torch.from_numpy(split.labels_N[ids_B]).to(world.device)[:, None]
                if found is None:
                    found = torch.zeros(2, len(logits_HBC), len(split), dtype=torch.int32, device=world.device)
                columns = torch.from_numpy(ids_B).to(world.device)
                found[0][:, columns] = right_HBK[..., 0].int()
                found[1][:, columns] = right_HBK.any(2).int()
        if found is None:  # more processes than photos
            with torch.inference_mode():
                heads = len(logits(torch.zeros(1, 3, self.size, self.size, device=world.device)))
            found = torch.zeros(2, heads, len(split), dtype=torch.int32, device=world.device)
        both = sum_over_processes(found).bool().cpu().numpy()
        return Hits(both[0], both[1])


def rows(models: tuple[str, ...], hits: Hits, split: Split, metric: str, *, seed: int, details: dict) -> list[Row]:
    """The rows of one classifier: its accuracy, and with more than five classes its top-5 accuracy.

    metric: top1, or mean_class. details: of the first row.
    """
    labels_N, count = split.labels_N, len(split)
    found = [Row(models, "", metric, accuracy_score(hits.top1_HN[0], labels_N, metric, seed=seed), count, details)]
    if len(np.unique(labels_N)) > TOP:
        found.append(Row(models, "", "top5", accuracy_score(hits.top5_HN[0], labels_N, "top1", seed=seed), count))
    return found
