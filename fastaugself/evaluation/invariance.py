"""Invariance of features: the Mahalanobis-whitened cosine similarity of Ericsson 2021 (arXiv 2111.11398, section 4).

Features are centred and whitened by their mean and covariance over clean images, so that all directions of variation
count equally. The invariance to a transform is the mean cosine similarity of an image and its transformed version: 1 if
the features ignore the transform, about 0 if the transformed image is as different as another image.

Shape suffixes: N images, M transformed images, J values of a transform, D features, K kept axes.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..probes.intervals import Score, mean_score
from . import cache
from .encoder import Encoder
from .features import Extractor, Frozen
from .prepare import in_threads
from .splits import Split
from .transforms import Transform


class Whitening(NamedTuple):
    """A whitening transform, float64: (x - mean_D) @ axes_DK has unit covariance on the clean images."""

    mean_D: Tensor
    axes_DK: Tensor

    def __call__(self, x_ND: Tensor) -> Tensor:
        return (x_ND.double() - self.mean_D) @ self.axes_DK


def whitening(clean_ND: Tensor) -> Whitening:
    """The whitening transform of clean features [N, D], from their unbiased covariance.

    Any square root of the inverse covariance gives the same cosine similarities. Axes with a variance below 1e-10 of
    the largest (dead features) are dropped. Raises UsageError for N <= D, where the covariance is singular.
    """
    count, width = clean_ND.shape
    if count <= width:
        raise UsageError(
            f"{count} images cannot whiten {width} features, since their covariance is singular: pass more than "
            f"{width} images (--data), or models with fewer features"
        )
    x = clean_ND.double()
    mean_D = x.mean(0)
    variance_D, axes_DD = torch.linalg.eigh((x - mean_D).T @ (x - mean_D) / (count - 1))
    kept = variance_D > 1e-10 * variance_D[-1]
    return Whitening(mean_D, axes_DD[:, kept] * variance_D[kept].rsqrt())


class Invariance(NamedTuple):
    """The invariance to one transform.

    published: mean cosine similarity over images and all values, including the identity. debiased: the same without the
    identity. distance: mean Mahalanobis distance, as published. by_value: mean cosine similarity at each value.
    """

    published: Score
    debiased: Score
    distance: float
    by_value: list[float]


def measure(
    white: Whitening, clean_MD: Tensor, changed_MJD: Tensor, identity: tuple[int, ...], *, seed: int
) -> Invariance:
    """The invariance to one transform, with 95 % intervals over the images.

    clean_MD: features of the images. changed_MJD: features of each image at every value of the transform.
    identity: positions of the values that change nothing. seed: of the bootstrap.
    """
    u_MK = white(clean_MD)
    v_MJK = white(changed_MJD.flatten(0, 1)).unflatten(0, changed_MJD.shape[:2])
    cosine_MJ = F.cosine_similarity(u_MK[:, None], v_MJK, dim=-1)
    distance_MJ = (u_MK[:, None] - v_MJK).norm(dim=-1)
    kept = [j for j in range(cosine_MJ.shape[1]) if j not in identity]
    return Invariance(
        mean_score(cosine_MJ.mean(1).numpy(), seed=seed),
        mean_score(cosine_MJ[:, kept].mean(1).numpy(), seed=seed),
        float(distance_MJ.mean()),
        cosine_MJ.mean(0).tolist(),
    )


def measure_views(white: Whitening, x_ND: Tensor, objects_N: Tensor, *, seed: int) -> Invariance:
    """The invariance to viewpoint, light, ...: mean cosine similarity among the views of each object, over objects.

    x_ND: features of all views. objects_N: int64 object of each view. `published` includes each view with itself, which
    biases it upwards; `debiased` does not. `distance` is the mean over pairs of views.
    Raises UsageError if no object has two views.
    """
    u_NK = white(x_ND)
    published, debiased, distances = [], [], []
    for label in objects_N.unique():
        u_VK = u_NK[objects_N == label]
        views = len(u_VK)
        if views < 2:
            continue
        unit = F.normalize(u_VK, dim=1)
        cosine_VV = unit @ unit.T
        published.append(float(cosine_VV.mean()))
        debiased.append((float(cosine_VV.sum()) - views) / (views * (views - 1)))
        distances.append(float(torch.pdist(u_VK).mean()))
    if not published:
        raise UsageError("no object has two views: pass --data with one folder per object and its views in it")
    return Invariance(
        mean_score(np.array(published), seed=seed),
        mean_score(np.array(debiased), seed=seed),
        float(np.mean(distances)),
        [],
    )


def draw(count: int, images: int, *, seed: int) -> np.ndarray:
    """Draws `images` of `count` positions with replacement, as published (numpy's RandomState at seed 0)."""
    return np.random.RandomState(seed).choice(count, images)


def transformed(
    extract: Extractor, encoder: Encoder, split: Split, chosen: np.ndarray, transform: Transform, *, resize: int
) -> Tensor:
    """Features of the chosen images at every value of a transform, float32 [M, J, D], cached."""
    values = len(transform.values)
    subset = split.take(chosen)
    identity = subset.images.digest(extract.folder)
    described = f"{transform.name} {transform.values} {encoder.size} {resize}"
    key = cache.key_of("transformed-1", encoder.digest, described, identity)

    def prepared(m: int) -> Tensor:
        image = subset.images.open(m)
        every = [transform(image, j, size=encoder.size, resize=resize) for j in range(values)]
        return torch.from_numpy(np.stack(every))

    def compute() -> Iterator[NDArray[np.float32]]:
        group = max(1, extract.batch_size // values)  # images per batch, each at all values
        with Frozen(encoder, extract.device) as frozen:
            stream = in_threads(prepared, range(len(subset)), workers=extract.workers, ahead=2 * group)
            while images := list(itertools.islice(stream, group)):
                yield np.concatenate([frozen(part).numpy() for part in torch.cat(images).split(extract.batch_size)])

    x_ND = extract.cached(key, len(subset) * values, compute(), f"{encoder.name} under {transform.name}")
    return x_ND.unflatten(0, (len(subset), values))
