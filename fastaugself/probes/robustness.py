"""Robustness: corruption errors and flip rates (Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4).

Shape suffixes: N images or sequences, C corruptions, S severities, F frames of a sequence.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .intervals import Score, bootstrap

Floats = NDArray[np.float64]

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's errors on ImageNet-C, means over the five severities, as google-research/augmix's imagenet.py has them from
# the authors' spreadsheet (https://github.com/hendrycks/robustness, "Calculating the mCE").
ALEXNET = dict(
    zip(
        CORRUPTIONS,
        (
            0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
            0.564592, 0.853204, 0.646056, 0.717840, 0.606500,
        ),
        strict=True,
    )
)  # fmt: skip


def mean_ratio(values_CN: Floats, baseline_C: Sequence[float] | None = None, *, seed: int) -> Score:
    """The mean over corruptions of each one's mean over images, divided by that of a baseline; interval over images.

    With the errors of images (means over severities) this is the mean corruption error (mCE), with the flip rates of
    sequences the mean flip rate (mFR). values_CN: of the same images, or sequences, under every corruption. baseline_C:
    the baseline's value for each corruption, above 0; None: not normalised.
    """
    base_C = np.ones(len(values_CN)) if baseline_C is None else np.array(baseline_C, np.float64)
    ratio_N = (values_CN / base_C[:, None]).mean(0)
    return bootstrap(lambda index: float(ratio_N[index].mean()), len(ratio_N), seed=seed)


def flip_rates(predicted_F: Sequence[NDArray[np.int64]], *, noise: bool) -> Floats:
    """Share of the frames whose predicted class differs from the previous frame's, float64 [N].

    predicted_F: predicted classes of the frames of each sequence, in order. noise: of noise, frames do not follow from
    each other, so that each is compared with the first. Raises ValueError for a sequence of fewer than two frames.
    """
    short = [i for i, frames in enumerate(predicted_F) if len(frames) < 2]
    if short:
        raise ValueError(f"sequence {short[0]} has {len(predicted_F[short[0]])} frame, expected at least two")
    return np.array([float((f[1:] != (f[:1] if noise else f[:-1])).mean()) for f in predicted_F])
