"""Colour information in features: the InfoNCE lower bound on I(C; Z) (van den Oord 2018, arXiv 1807.03748).

C is the joint colour histogram of the image as the encoder sees it, Z its features; the analysis is that of AugSelf
(Lee 2021, arXiv 2111.09613), whose critic and bins were not released. The critic, an inner product of two MLPs, is
trained on one split and evaluated on another, so overfitting cannot inflate the bound.

Shape suffixes: B batch, N samples, D features, K histogram cells, E embedding, H W, C channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError

BINS = 4  # per channel


class Histogram(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to their normalised RGB histograms [B, bins^3]."""

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x_BCHW: Tensor) -> Tensor:
        level_BCN = (x_BCHW.flatten(2) * self.bins).long().clamp(0, self.bins - 1)
        cell_BN = (level_BCN[:, 0] * self.bins + level_BCN[:, 1]) * self.bins + level_BCN[:, 2]
        counts_BK = torch.zeros(len(cell_BN), self.bins**3, device=x_BCHW.device)
        counts_BK.scatter_add_(1, cell_BN, torch.ones_like(cell_BN, dtype=counts_BK.dtype))
        return counts_BK / cell_BN.shape[1]

    def extra_repr(self) -> str:
        return f"bins={self.bins}"


class Critic(nn.Module):
    """Scores [B, B] of all pairs of a batch: cosine similarity of two embeddings, divided by a learned temperature."""

    def __init__(self, left: int, right: int, hidden: int = 256, embedding: int = 64) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(left, hidden), nn.ReLU(), nn.Linear(hidden, embedding))
        self.right = nn.Sequential(nn.Linear(right, hidden), nn.ReLU(), nn.Linear(hidden, embedding))
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))

    def forward(self, left_BK: Tensor, right_BD: Tensor) -> Tensor:
        left_BE, right_BE = F.normalize(self.left(left_BK), dim=1), F.normalize(self.right(right_BD), dim=1)
        return self.log_scale.clamp(max=math.log(50.0)).exp() * left_BE @ right_BE.T


def infonce_bound(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    batch_size: int = 256,
    epochs: int = 50,
    lr: float = 1e-3,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """(estimate of each test batch in nats, float64; their ceiling log(batch_size)).

    The mean of the estimates is a lower bound on the mutual information. train, test: (C [N, K], Z [N, D]) of the same
    samples; both are standardised by the statistics of train. batch_size: reduced to the smaller split where that has
    fewer samples. epochs, lr: training of the critic. seed: of its initialisation and of all shuffling. The test
    samples are shuffled into batches five times. Raises UsageError for splits with fewer than 8 samples.
    """
    small = min(len(train[0]), len(test[0]))
    batch_size = min(batch_size, small)
    if batch_size < 8:
        raise UsageError(f"the bound needs at least 8 samples in each split, got {small}")
    standard = [(x.float().mean(0), x.float().std(0).clamp(min=1e-6)) for x in train]
    (c, z), (c_test, z_test) = (
        tuple((x.float() - mean) / std for x, (mean, std) in zip(side, standard, strict=True)) for side in (train, test)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = Critic(c.shape[1], z.shape[1]).to(c.device)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=lr, weight_decay=1e-2)
    steps = epochs * (len(c) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(epochs):
        order = torch.randperm(len(c), generator=generator)
        for index in order.split(batch_size):
            if len(index) == batch_size:
                optimizer.zero_grad(set_to_none=True)
                _nce(critic(c[index], z[index])).backward()
                optimizer.step()
                schedule.step()
    values = []
    with torch.no_grad():
        for _ in range(5):
            for index in torch.randperm(len(c_test), generator=generator).split(batch_size):
                if len(index) == batch_size:
                    values.append(math.log(batch_size) - _nce(critic(c_test[index], z_test[index])))
    return torch.stack(values).double().cpu(), math.log(batch_size)


def _nce(scores_BB: Tensor) -> Tensor:
    """InfoNCE loss, the mean of both directions."""
    target = torch.arange(len(scores_BB), device=scores_BB.device)
    return (F.cross_entropy(scores_BB, target) + F.cross_entropy(scores_BB.T, target)) / 2
