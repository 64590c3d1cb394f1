"""Random divisions of samples into parts, stratified by class where there are classes.

Shape suffixes: N samples.
"""

import numpy as np
import torch
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def cut(count: int, out: int, *, seed: int) -> tuple[Positions, Positions]:
    """Splits `count` positions at random into (kept, held out), with `out` held out.

    As `torch.utils.data.random_split`: the first `count - out` positions of torch.randperm are kept.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[: count - out], order[count - out :]


def cut_by_class(labels_N: Positions, out: float, *, seed: int) -> tuple[Positions, Positions]:
    """Splits positions at random into (kept, held out), both sorted, class by class.

    out: samples to hold out per class; below 1, a fraction of the class (at least one sample). One sample per class is
    always kept. The order is that of torch.randperm.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held_out = [], []
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        members = members[torch.randperm(len(members), generator=generator).numpy()]
        number = min(len(members) - 1, round(out) if out >= 1 else max(1, round(out * len(members))))
        held_out.append(members[:number])
        kept.append(members[number:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held_out))


def thin(labels_N: Positions, limit: int, *, seed: int) -> Positions:
    """A random subset of at most `limit` positions, sorted and stratified by class, with at least one per class."""
    random = np.random.default_rng(seed)
    place_N = np.empty(len(labels_N))  # random quantile of each sample within its class, in [0, 1)
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        places = (np.arange(len(members)) + random.random()) / len(members)
        places[0] = 0
        place_N[members] = random.permutation(places)
    limit = max(limit, len(np.unique(labels_N)))
    return np.sort(np.argsort(place_N, kind="stable")[:limit])
