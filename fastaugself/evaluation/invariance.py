"""How invariant features are: the Mahalanobis-whitened cosine of Ericsson 2021 (arXiv 2111.11398, section 4).

Features are centred by their mean and whitened by their covariance over clean images, so that all directions that vary
among images count alike. The invariance to a transform is the mean cosine of an image and its transformed self: 1 for
features that ignore it, about 0 for features that cannot tell the transformed image from another.

Shape suffixes: N images, M images of a measurement, J values of a transform, D features, K kept axes.
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
from .encoders import Encoder
from .features import Extractor, Frozen
from .prepare import in_threads
from .splits import Split
from .transforms import Transform


class Whitening(NamedTuple):
    """mean_D, axes_DK: u(x) = (x - mean) @ axes has covariance 1; float64."""

    mean_D: Tensor
    axes_DK: Tensor

    def __call__(self, x_ND: Tensor) -> Tensor:
        return (x_ND.double() - self.mean_D) @ self.axes_DK


def whitening(clean_ND: Tensor) -> Whitening:
    """From the features of clean images, covariance unbiased. Any square root of its inverse gives the same cosines.

    Axes whose variance is below 1e-10 of the largest (dead features) are dropped. Raises UsageError where there are not
    more images than features: their covariance has no inverse.
    """
    count, width = clean_ND.shape
    if count <= width:
        raise UsageError(
            f"{count} images cannot whiten {width} features, their covariance has no inverse: pass more than {width} "
            f"images (--data), or models with fewer features"
        )
    x = clean_ND.double()
    mean_D = x.mean(0)
    variance_D, axes_DD = torch.linalg.eigh((x - mean_D).T @ (x - mean_D) / (count - 1))
    kept = variance_D > 1e-10 * variance_D[-1]
    return Whitening(mean_D, axes_DD[:, kept] * variance_D[kept].rsqrt())


class Invariance(NamedTuple):
    """published: mean cosine over images and all values, the identity among them. debiased: without the identity.

    distance: mean Mahalanobis distance, as published. by_value: mean cosine of each value.
    """

    published: Score
    debiased: Score
    distance: float
    by_value: list[float]


def measure(
    white: Whitening, clean_MD: Tensor, changed_MJD: Tensor, identity: tuple[int, ...], *, seed: int
) -> Invariance:
    """The invariance to one transform, with 95 % intervals over the images."""
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
    """The invariance to how an object was photographed: mean cosine among the views of each object, over objects.

    published counts each view with itself too, which adds 1/views; debiased does not. distance: mean over pairs.
    Raises UsageError where no object has two views.
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
        raise UsageError("no object has two views: expected one folder an object, with its views in it")
    return Invariance(
        mean_score(np.array(published), seed=seed),
        mean_score(np.array(debiased), seed=seed),
        float(np.mean(distances)),
        [],
    )


def draw(count: int, images: int, *, seed: int) -> np.ndarray:
    """Which images are transformed: with replacement, as published (numpy's generator of 2021 at seed 0)."""
    return np.random.RandomState(seed).choice(count, images)


def transformed(
    extract: Extractor, encoder: Encoder, split: Split, chosen: np.ndarray, transform: Transform, *, resize: int
) -> Tensor:
    """Features of the chosen images under every value of a transform, [M, J, D], kept in the cache."""
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
        together = max(1, extract.batch_size // values)  # images whose values fill a batch
        with Frozen(encoder, extract.device) as frozen:
            stream = in_threads(prepared, range(len(subset)), workers=extract.workers, ahead=2 * together)
            while images := list(itertools.islice(stream, together)):
                yield np.concatenate([frozen(part).numpy() for part in torch.cat(images).split(extract.batch_size)])

    x_ND = extract.kept(key, len(subset) * values, compute(), f"{encoder.name} under {transform.name}")
    return x_ND.unflatten(0, (len(subset), values))
