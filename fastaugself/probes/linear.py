"""The linear probe: multinomial logistic regression on frozen features, with the L2 penalty chosen on validation.

The objective is the one published with AugSelf (Lee 2021, arXiv 2111.09613): the sum of the cross-entropy over samples
plus `penalty` times the squared weights and biases, on raw features, for 45 penalties from 1e-6 to 1e5, each started
from the solution of the previous one; the penalty that is best on validation is refit on train and validation together.
Each optimum is unique, so the optimizer does not change the result. Here it is L-BFGS (logistic.py) in the principal
axes of the features, in single precision along the path and in double precision for the final fit.

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
from .accuracy import accuracy
from .logistic import Descent

log = logging.getLogger("fastaugself")

PENALTIES: tuple[float, ...] = tuple(np.logspace(-6, 5, 45).tolist())
# Tolerances of the estimated gap to the optimum. At weak penalties, where the objective is nearly flat, the true gap is
# larger than the estimate: up to 40 times on the path and some hundred times in the final fit, on features of 242
# characters.
PATH_TOLERANCE, SINGLE_TOLERANCE, FINAL_TOLERANCE = 1e-5, 1e-7, 1e-9
MAX_ITERATIONS = 5000
REPORT_SECONDS = 15.0


class Probe(NamedTuple):
    """A fitted linear classifier, float64; gap and iterations are those of its `logistic.Fit`."""

    weights_DC: Tensor
    bias_C: Tensor
    gap: float
    iterations: int

    def logits(self, x_ND: Tensor) -> Tensor:
        """Logits [N, C], float64."""
        return x_ND.to(self.weights_DC) @ self.weights_DC + self.bias_C


class Axes:
    """Features with a constant 1 appended, rotated to their principal axes; the L2 penalty is invariant to rotation.

    Axes without variance are dropped: the optimum is zero along them.
    """

    def __init__(self, x_ND: Tensor, device: torch.device) -> None:
        x = torch.cat([x_ND.to(device, torch.float64), torch.ones(len(x_ND), 1, device=device, dtype=torch.float64)], 1)
        power_D, axes_DD = torch.linalg.eigh(x.T @ x)
        kept = power_D > power_D[-1] * 1e-12
        self.axes_DA = axes_DD[:, kept]
        self.x_NA = x @ self.axes_DA

    def probe(self, labels_N: Tensor, classes: int, penalty: float, start_AC: Tensor | None = None) -> Probe:
        """The probe fitted to all samples at one penalty, first in single precision, then in double.

        start_AC: initial weights in the principal axes, default zero.
        """
        iterations = 0
        for dtype, tolerance in ((torch.float32, SINGLE_TOLERANCE), (torch.float64, FINAL_TOLERANCE)):
            descent = Descent(self.x_NA.to(dtype), labels_N, classes, start_AC)
            fit = descent.fit(penalty, tolerance=tolerance, max_iterations=MAX_ITERATIONS)
            start_AC, iterations = descent.weights_AC, iterations + fit.iterations
        whole_DC = (self.axes_DA @ descent.weights_AC).cpu()
        return Probe(whole_DC[:-1], whole_DC[-1], fit.gap, iterations)


class Choice(NamedTuple):
    """The probe refit on train and validation, its penalty, and the path: (penalty, validation accuracy) of each."""

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
    """Fits every penalty on train, chooses the best on validation, and refits it on both.

    train_ND, val_ND: features. train_labels_N, val_labels_N: int64 classes from 0.
    metric: validation accuracy to maximise, "top1" or "mean_class". device: where to fit, default that of `train_ND`.
    The path runs from the strongest penalty, which is the easiest fit, to the weakest; of penalties with equal
    validation accuracy the strongest is chosen.
    Raises UsageError for NaN or Inf features, and for labels of a single class.
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
        correct_N = (val_NA @ descent.weights_AC).argmax(1).cpu() == val_labels_N
        validated = accuracy(correct_N.numpy(), val_labels_N.numpy(), metric)
        path.append((penalty, validated))
        if validated > best:
            best, chosen, start_AC = validated, penalty, descent.weights_AC
        if time.monotonic() > reported + REPORT_SECONDS:
            log.info("linear probe: %d of %d penalties, best validation accuracy %.3f", len(path), len(penalties), best)
            reported = time.monotonic()
    return Choice(axes.probe(labels_N, classes, chosen, start_AC), chosen, path[::-1])


def _check(x_ND: Tensor, labels_N: Tensor) -> None:
    if not torch.isfinite(x_ND).all():
        raise UsageError("the features of the linear probe contain NaN or Inf")
    if len(x_ND) != len(labels_N):
        raise UsageError(f"got {len(x_ND)} features and {len(labels_N)} labels, expected one label each")
    if len(labels_N.unique()) < 2:
        raise UsageError("the labels of the linear probe are all of one class: expected at least two classes")
