"""The linear probe: multinomial logistic regression on frozen features, its l2 penalty chosen on validation.

The objective is the one published with AugSelf (Lee 2021, arXiv 2111.09613): the sum of the cross-entropy over samples
plus `penalty` times the squares of all weights and biases, on raw features, for 45 penalties from 1e-6 to 1e5, each
fitted from the solution of the one before; the best on validation is fitted again on train and validation together.
The optimum of each is unique, so how it is found does not matter, and here it is found sooner: L-BFGS (logistic.py)
runs in the features' principal axes, in single precision along the path, in double for the final fit.

Shape suffixes: N samples, D features, A axes, C classes.
"""

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .logistic import Descent

log = logging.getLogger("fastaugself")

PENALTIES: tuple[float, ...] = tuple(np.logspace(-6, 5, 45).tolist())
# Of the estimated gap to the optimum. At weak penalties, where few samples curve the objective, the true one is larger:
# up to 40 times on the path and some hundred times in the final fit, on features of 242 characters.
PATH_TOLERANCE, SINGLE_TOLERANCE, FINAL_TOLERANCE = 1e-5, 1e-7, 1e-9
MAX_ITERATIONS = 5000
REPORT_SECONDS = 15.0


class Probe(NamedTuple):
    """weights_DC, bias_C: of the classifier, float64. gap, iterations: of the fit, as in logistic.Fit."""

    weights_DC: Tensor
    bias_C: Tensor
    gap: float
    iterations: int

    def logits(self, x_ND: Tensor) -> Tensor:
        """Float64 [N, C]."""
        return x_ND.to(self.weights_DC) @ self.weights_DC + self.bias_C


class Axes:
    """Features with a constant 1 appended, in their principal axes: the penalty, rotated too, stays what it was.

    Axes without variance are dropped: the optimum has no part in them.
    """

    def __init__(self, x_ND: Tensor, device: torch.device) -> None:
        x = torch.cat([x_ND.to(device, torch.float64), torch.ones(len(x_ND), 1, device=device, dtype=torch.float64)], 1)
        power_D, axes_DD = torch.linalg.eigh(x.T @ x)
        kept = power_D > power_D[-1] * 1e-12
        self.axes_DA = axes_DD[:, kept]
        self.x_NA = x @ self.axes_DA

    def probe(self, labels_N: Tensor, classes: int, penalty: float, start_AC: Tensor | None = None) -> Probe:
        """Fitted to all samples, most of the way in single precision. start_AC: weights in the axes to begin with."""
        iterations = 0
        for dtype, tolerance in ((torch.float32, SINGLE_TOLERANCE), (torch.float64, FINAL_TOLERANCE)):
            descent = Descent(self.x_NA.to(dtype), labels_N, classes, start_AC)
            found = descent.fit(penalty, tolerance=tolerance, max_iterations=MAX_ITERATIONS)
            start_AC, iterations = descent.weights_AC, iterations + found.iterations
        whole_DC = (self.axes_DA @ descent.weights_AC).cpu()
        return Probe(whole_DC[:-1], whole_DC[-1], found.gap, iterations)


def fit_probe(
    x_ND: Tensor, labels_N: Tensor, *, penalty: float, classes: int = 0, device: torch.device | None = None
) -> Probe:
    """The probe at one penalty. x_ND: features. labels_N: int64. Raises UsageError for features that are not finite."""
    _check(x_ND, labels_N)
    return Axes(x_ND, device or x_ND.device).probe(labels_N, classes or int(labels_N.max()) + 1, penalty)


class Choice(NamedTuple):
    """probe: fitted on train and validation. penalty: chosen. path: (penalty, validation accuracy) of all tried."""

    probe: Probe
    penalty: float
    path: list[tuple[float, float]]


def choose_probe(
    train_ND: Tensor,
    train_labels_N: Tensor,
    val_ND: Tensor,
    val_labels_N: Tensor,
    *,
    metric: str = "top1",
    penalties: Sequence[float] = PENALTIES,
    device: torch.device | None = None,
) -> Choice:
    """Fits the path of penalties on train, chooses on validation, refits on both.

    metric: of the choice, "top1" or "mean_class". The path goes down from the strongest penalty, whose fits are easy;
    among equals the strongest penalty that reaches the best validation accuracy is taken.
    """
    _check(train_ND, train_labels_N)
    _check(val_ND, val_labels_N)
    labels_N = torch.cat([train_labels_N, val_labels_N])
    count, classes = len(train_ND), int(labels_N.max()) + 1
    axes = Axes(torch.cat([train_ND, val_ND]), device or train_ND.device)
    train_NA, val_NA = axes.x_NA.float().tensor_split([count])
    descent = Descent(train_NA, train_labels_N, classes)
    path: list[tuple[float, float]] = []
    best, chosen, start_AC, reported = -1.0, 0.0, None, time.monotonic()
    for penalty in sorted(penalties, reverse=True):
        descent.fit(penalty, tolerance=PATH_TOLERANCE, max_iterations=MAX_ITERATIONS)
        accuracy = _accuracy((val_NA @ descent.weights_AC).argmax(1).cpu(), val_labels_N, metric)
        path.append((penalty, accuracy))
        if accuracy > best:
            best, chosen, start_AC = accuracy, penalty, descent.weights_AC
        if time.monotonic() > reported + REPORT_SECONDS:
            log.info("linear probe: %d of %d penalties, best on validation %.3f", len(path), len(penalties), best)
            reported = time.monotonic()
    return Choice(axes.probe(labels_N, classes, chosen, start_AC), chosen, path[::-1])


def _accuracy(predicted_N: Tensor, labels_N: Tensor, metric: str) -> float:
    right_N = (predicted_N == labels_N).double()
    if metric == "top1":
        return float(right_N.mean())
    counts_C = torch.bincount(labels_N)
    hits_C = torch.bincount(labels_N, weights=right_N, minlength=len(counts_C))
    return float((hits_C / counts_C.clamp(min=1))[counts_C > 0].mean())


def _check(x_ND: Tensor, labels_N: Tensor) -> None:
    if not torch.isfinite(x_ND).all():
        raise UsageError("features of the linear probe are not finite")
    if len(x_ND) != len(labels_N):
        raise UsageError(f"{len(x_ND)} features came with {len(labels_N)} labels")
    if len(labels_N.unique()) < 2:
        raise UsageError("the labels of the linear probe are all of one class")
