"""Accuracy over samples or averaged over classes.

Shape suffixes: N samples, C classes.
"""

import numpy as np
from numpy.typing import NDArray


def accuracy(correct_N: NDArray[np.bool_], labels_N: NDArray[np.int64], metric: str = "top1") -> float:
    """Fraction of correct predictions in [0, 1].

    correct_N: whether each prediction is right. labels_N: true classes, from 0.
    metric: "top1" (over samples) or "mean_class" (mean over the classes in `labels_N` of each class's accuracy).
    """
    right_N = correct_N.astype(np.float64)
    if metric == "top1":
        return float(right_N.mean())
    counts_C = np.bincount(labels_N)
    hits_C = np.bincount(labels_N, weights=right_N)
    present_C = counts_C > 0
    return float((hits_C[present_C] / counts_C[present_C]).mean())
