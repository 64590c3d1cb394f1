"""Equivariance of frozen features: K views of every photo, and a predictor from one view's features to another's.

The predictor of an encoder that has none is trained on frozen features, as STL does for all methods (Yu 2024, arXiv
2501.08712, table 6). It gets the features of a view and the difference of the parameters of both views. Anything with
the methods of `ViewPredictor` is measured in the same way.

Shape suffixes: N photos, K views of each photo, B pairs, D features, E embedding, P parameter columns,
n condition columns, 2 = (height, width), 3 = color channels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy, descriptors
from fastaugself_kernels.params import ROTATION, P

from ..errors import UsageError
from ..probes.equivariance import PhotoScores, ceiling, chance, score_photos
from ..probes.intervals import Score, mean_score
from . import cache
from .encoder import Encoder
from .features import Extractor, Frozen
from .fusion import Representation
from .splits import Split
from .views import view_batches

PARTS = ("blur", "color", "crop", "flip", "grayscale")
METRICS = ("MRR", "H@1", "H@5", "PRE", "gain")  # in the order of PhotoScores


def policies(size: int) -> dict[str, ViewPolicy]:
    """Policies that vary one augmentation and nothing else, and MoCo v2's as "all". size: of the views in pixels."""
    none = ViewPolicy.none(size)
    return {
        "all": ViewPolicy.moco_v2(size),
        "crop": replace(none, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
        "color": replace(none, jitter=1.0),
        "blur": replace(none, blur=1.0),
        "flip": replace(none, flip=0.5),
        "grayscale": replace(none, gray=0.5),
        "rotation": replace(none, rotation=1.0),
    }


class PhotoViews(NamedTuple):
    """Features and parameters of K views of every photo.

    features: rows [N * K, D], the views of a photo one after another. params_KNP, sizes_N2, shift_KN3: as in
    `views.Batch`, of which conditions of any kind can be made.
    """

    features: Representation
    params_KNP: Tensor
    sizes_N2: Tensor
    shift_KN3: Tensor

    def parameters(self, policy: ViewPolicy) -> Tensor:
        """CASSLE's descriptors and the rotation (cosine, sine), not standardised, float32 [N, K, n]."""
        K = len(self.params_KNP)
        omega_KNn = descriptors(self.params_KNP, self.sizes_N2, (policy,) * K, include=PARTS)
        angle_KN1 = self.params_KNP[:, :, ROTATION, None] * (math.pi / 2)
        # Rounded, so that a quarter turn has the cosine 0 and equal rotations have equal parameters.
        return torch.cat([omega_KNn, angle_KN1.cos().round(), angle_KN1.sin().round()], 2).transpose(0, 1)


def encode(
    extract: Extractor, encoder: Encoder, split: Split, policy: ViewPolicy, *, views: int, seed: int
) -> PhotoViews:
    """Encodes `views` views of every photo of a split, cached.

    seed: of the augmentations. View k of a photo depends on the seed, the photo's position and k alone.
    """
    identity = split.images.digest(extract.folder)
    key = cache.key_of("photo-views-1", encoder.digest, repr(policy), f"{seed} {views} {encoder.size}", identity)

    def compute() -> Iterator[np.ndarray]:
        with Frozen(encoder, extract.device) as frozen:
            options = {"batch_size": extract.batch_size, "device": extract.device, "workers": extract.workers}
            for batch in view_batches(split, encoder, (policy,) * views, seed=seed, **options):  # type: ignore[arg-type]
                every = [
                    torch.cat([frozen.features(x_BCHW), params_BP, shift_B3], 1)
                    for x_BCHW, params_BP, shift_B3 in zip(
                        batch.x_VBCHW, batch.params_VBP, batch.shift_VB3, strict=True
                    )
                ]
                yield torch.cat([*every, batch.sizes_B2.float()], 1).numpy()

    rows = extract.cached(key, len(split), compute(), f"{encoder.name} on views")
    rows_NKF = rows[:, :-2].unflatten(1, (views, -1))
    x_NKD, params_NKP, shift_NK3 = rows_NKF.split([rows_NKF.shape[2] - P - 3, P, 3], 2)
    draws = f"{identity} {replace(policy, size=1)} {seed} {views}"  # models of other sizes have the same parameters
    features = Representation(encoder.name, x_NKD.flatten(0, 1), draws)
    return PhotoViews(
        features, params_NKP.transpose(0, 1).contiguous(), rows[:, -2:].int(), shift_NK3.transpose(0, 1).contiguous()
    )


class ViewPredictor(Protocol):
    """What predicts the embedding of a view from the features of another view of the same photo."""

    def embed_view(self, f_BD: Tensor) -> Tensor:
        """The embeddings y_BE of views, among which the prediction is ranked."""

    def predict_view(self, f_BD: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        """The predicted embeddings yhat_BE of the views with parameters a_to from those with a_from."""


class Standard(nn.Module):
    """Standardises columns by given samples; columns that do not vary there (up to rounding) become 0."""

    def __init__(self, x_ND: Tensor) -> None:
        super().__init__()
        mean_D, std_D = x_ND.double().mean(0), x_ND.double().std(0)
        rounding = 1e-5 * x_ND.double().square().mean().sqrt()
        varies = std_D > rounding
        self.register_buffer("mean_D", mean_D.float())
        self.register_buffer("factor_D", torch.where(varies, 1 / std_D.where(varies, torch.ones(())), 0.0).float())

    def forward(self, x_ND: Tensor) -> Tensor:
        out: Tensor = (x_ND - self.get_buffer("mean_D")) * self.get_buffer("factor_D")
        return out


class Residual(nn.Module):
    """A `ViewPredictor` on frozen features: y is f, standardised; yhat = y + MLP([y, a_to - a_from])."""

    def __init__(self, f_ND: Tensor, difference_Mn: Tensor, hidden: int) -> None:
        super().__init__()
        self.features, self.differences = Standard(f_ND), Standard(difference_Mn)
        D, n = f_ND.shape[1], difference_Mn.shape[1]
        self.mlp = nn.Sequential(
            nn.Linear(D + n, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, D)
        )

    def embed_view(self, f_BD: Tensor) -> Tensor:
        out: Tensor = self.features(f_BD)
        return out

    def predict_view(self, f_BD: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        y_BD = self.embed_view(f_BD)
        out: Tensor = y_BD + self.mlp(torch.cat([y_BD, self.differences(a_to_Bn - a_from_Bn)], 1))
        return out


def fit_predictor(
    f_NKD: Tensor,
    a_NKn: Tensor,
    *,
    epochs: int = 30,
    batch_size: int = 256,
    hidden: int = 1024,
    lr: float = 1e-3,
    seed: int = 0,
) -> Residual:
    """Trains a predictor on frozen features with AdamW and the loss 1 - cos(y_j, yhat_ij); in evaluation mode.

    f_NKD, a_NKn: features and parameters of the views. An epoch predicts from every view one random other view of its
    photo. seed: of the initial weights and of all draws.
    """
    K = f_NKD.shape[1]
    differences_NKKn = a_NKn[:, None] - a_NKn[:, :, None]
    different_KK = ~torch.eye(K, dtype=torch.bool)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor = Residual(f_NKD.flatten(0, 1), differences_NKKn[:, different_KK].flatten(0, 1), hidden)
    f_RD, a_Rn = f_NKD.flatten(0, 1), a_NKn.flatten(0, 1)  # R = N * K views
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=lr, weight_decay=1e-2)
    steps = epochs * math.ceil(len(f_RD) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for i_B in torch.randperm(len(f_RD), generator=generator).split(batch_size):
            steps_B = torch.randint(1, K, (len(i_B),), generator=generator)
            j_B = i_B - i_B % K + (i_B + steps_B) % K
            yhat_BD = predictor.predict_view(f_RD[i_B], a_Rn[i_B], a_Rn[j_B])
            loss = 1 - F.cosine_similarity(yhat_BD, predictor.embed_view(f_RD[j_B])).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return predictor.eval()


@torch.no_grad()
def measure(
    predictor: ViewPredictor,
    f_NKD: Tensor,
    condition_NKn: Tensor,
    a_NKn: Tensor,
    *,
    source_NKD: Tensor | None = None,
    chunk: int = 64,
) -> PhotoScores:
    """The scores of a predictor on every photo.

    f_NKD: features. condition_NKn: parameters as the predictor takes them. a_NKn: parameters as PRE measures them.
    source_NKD: features that it predicts from, by default those of the views. chunk: photos at a time, for K * K
    predictions each.
    """
    K = f_NKD.shape[1]
    found = []
    parts = (f_NKD, f_NKD if source_NKD is None else source_NKD, condition_NKn, a_NKn)
    for f, source, condition, a in zip(*(part.split(chunk) for part in parts), strict=True):
        y = predictor.embed_view(f.flatten(0, 1)).unflatten(0, (-1, K))
        first, second = (t.flatten() for t in torch.meshgrid(torch.arange(K), torch.arange(K), indexing="ij"))
        yhat = predictor.predict_view(
            source[:, first].flatten(0, 1), condition[:, first].flatten(0, 1), condition[:, second].flatten(0, 1)
        )
        found.append(score_photos(y, yhat.unflatten(0, (-1, K, K)), a))
    return PhotoScores(*(torch.cat(column) for column in zip(*found, strict=True)))


def known(names: Sequence[str], size: int) -> dict[str, ViewPolicy]:
    """The policies of the named augmentations. Raises UsageError for an unknown or missing name."""
    every = policies(size)
    wrong = next((f"unknown augmentation {name}" for name in names if name not in every), "")
    if wrong or not names:
        raise UsageError(f"{wrong or 'no augmentation given'}; pass --augmentations with some of {', '.join(every)}")
    return {name: every[name] for name in names}


class Measured(NamedTuple):
    """Scores by metric (MRR, H@1, H@5, PRE, gain), with those of chance and the best possible (not of the gain)."""

    scores: dict[str, Score]
    chance: dict[str, float]
    ceiling: dict[str, float]


def summary(scores: PhotoScores, a_NKn: Tensor, *, seed: int) -> Measured:
    """Means over photos, with 95 % intervals over photos. a_NKn: parameters, standardised. seed: of the bootstrap."""
    found = {name: mean_score(score_N.cpu().numpy(), seed=seed) for name, score_N in zip(METRICS, scores, strict=True)}
    lowest, highest = (
        {name: float(level_N.mean()) for name, level_N in zip(METRICS, level, strict=True)}
        for level in (chance(a_NKn), ceiling(a_NKn))
    )
    highest.pop("gain")
    return Measured(found, lowest, highest)
