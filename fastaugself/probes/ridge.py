"""Ridge regression on frozen features: with the penalty chosen on a validation split, and at one penalty.

Shape suffixes: N training samples, M test samples, D features, T targets.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .linear import PENALTIES

ROWS = 4096  # samples in float64 at once
Total = Callable[[Tensor], Tensor]


def alone(x: Tensor) -> Tensor:
    """The sum over processes of what one process alone has."""
    return x


class Ridge(NamedTuple):
    """A fitted linear map: prediction = x @ weights_DT + bias_T, in float64.

    penalty: factor of the squared weights; the bias is not penalised.
    path: (penalty, R2 on the validation split) of every penalty that was tried.
    """

    weights_DT: Tensor
    bias_T: Tensor
    penalty: float
    path: list[tuple[float, float]]

    def predict(self, x_ND: Tensor) -> Tensor:
        """Predicted targets [N, T], float64, on the device of the weights."""
        return x_ND.double().to(self.weights_DT.device) @ self.weights_DT + self.bias_T


class _Path:
    """Ridge solutions at any penalty from one eigendecomposition of the Gram matrix."""

    def __init__(self, x_ND: Tensor, y_NT: Tensor) -> None:
        self.x_mean, self.y_mean = x_ND.double().mean(0), y_NT.double().mean(0)
        x = x_ND.double() - self.x_mean
        power_D, self.axes_DD = torch.linalg.eigh(x.T @ x)
        self.power_D = power_D.clamp(min=0)
        self.cross_DT = self.axes_DD.T @ (x.T @ (y_NT.double() - self.y_mean))

    def solution(self, penalty: float, path: list[tuple[float, float]]) -> Ridge:
        weights = self.axes_DD @ (self.cross_DT / (self.power_D + penalty)[:, None])
        return Ridge(weights, self.y_mean - self.x_mean @ weights, penalty, path)


def choose_ridge(
    train_ND: Tensor, train_NT: Tensor, val_ND: Tensor, val_NT: Tensor, *, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Minimises |y - xW - b|^2 + penalty |W|^2 on both splits, at the penalty with the best mean R2 on validation.

    train_ND, val_ND: features. train_NT, val_NT: targets, any float dtype. Of equally good penalties, the largest.
    Raises UsageError for NaN or Inf values, and for a validation target that is constant.
    """
    _check(train_ND, train_NT)
    _check(val_ND, val_NT)
    solver = _Path(train_ND, train_NT)
    path = [(p, float(np.mean(r2(solver.solution(p, []).predict(val_ND), val_NT)))) for p in penalties]
    penalty = max(reversed(path), key=lambda entry: entry[1])[0]
    both_x, both_y = torch.cat([train_ND, val_ND]), torch.cat([train_NT, val_NT])
    return _Path(both_x, both_y).solution(penalty, path)


def r2(predicted_NT: Tensor, true_NT: Tensor) -> list[float]:
    """R2 of each target: 1 - residual / variance. 1 is perfect, 0 is predicting the mean, negative is worse than that.

    Raises UsageError for a target that is constant.
    """
    true_NT = true_NT.double().to(predicted_NT.device)
    constant_T = _variation(true_NT) <= 1e-12 * true_NT.square().sum(0).clamp(min=1e-12)
    if bool(constant_T.any()):
        column = int(constant_T.nonzero()[0])
        raise UsageError(f"target {column} is the same for all {len(true_NT)} samples: R2 is undefined")
    return _r2(predicted_NT, true_NT).tolist()


def ridge_accuracy(
    train_ND: Tensor,
    labels_N: Tensor,
    test_MD: Tensor,
    test_labels_M: Tensor,
    *,
    values_C: Tensor | None = None,
    total: Total = alone,
) -> float:
    """Top-1 accuracy on the test samples, in [0, 1], of a ridge regression on one-hot labels.

    A quick stand-in for logistic regression during training. Features are standardised as in `ridge_r2`.
    labels_N, test_labels_M: int64. values_C: the sorted labels that occur in the training samples of all processes,
    default those in `labels_N`. total: see `ridge_r2`.
    """
    values_C = labels_N.unique() if values_C is None else values_C
    numbers_N = torch.searchsorted(values_C, labels_N)
    ridge = fit_ridge(train_ND, OneHot(numbers_N, len(values_C)), total=total)
    correct = sum(
        ((values_C[ridge.predict(x_MD).argmax(1)] == y_M).sum() for x_MD, y_M in _chunks(test_MD, test_labels_M)),
        start=torch.zeros((), dtype=torch.int64, device=test_MD.device),
    )
    right, count = total(torch.stack([correct, torch.full_like(correct, len(test_MD))])).tolist()
    return float(right / count)


def ridge_r2(
    train_ND: Tensor,
    targets_NT: Tensor,
    test_MD: Tensor,
    test_targets_MT: Tensor,
    *,
    penalty: float = 1.0,
    total: Total = alone,
) -> float:
    """R2 on the test samples, averaged over targets, of a ridge regression on standardised features.

    penalty: factor of the squared weights, in units of one sample. float64 throughout. NaN or -Inf where a target is
    constant on the test samples.
    total: where the samples are divided among processes, sums a tensor over all of them; each passes its own share, and
    all get the result.
    """
    targets = Targets(targets_NT.double().to(train_ND.device))
    ridge = fit_ridge(train_ND, targets, penalty=penalty, total=total)
    truth_MT = test_targets_MT.double().to(test_MD.device)
    count = total(torch.tensor(float(len(test_MD)), dtype=torch.float64, device=test_MD.device))
    mean_T = total(truth_MT.sum(0)) / count
    residual_T = total((ridge.predict(test_MD) - truth_MT).square().sum(0))
    return float((1 - residual_T / total((truth_MT - mean_T).square().sum(0))).mean())


class Targets(NamedTuple):
    """Dense targets, float64 [N, T]."""

    values_NT: Tensor

    def sum(self) -> Tensor:
        """[T]"""
        return self.values_NT.sum(0)

    def add_products(self, sums_TD: Tensor, x_nD: Tensor, part: slice) -> None:
        """Adds the products of targets and features, summed over the samples in `part`."""
        sums_TD += self.values_NT[part].T @ x_nD


class OneHot(NamedTuple):
    """One-hot targets: the class number of each sample, int64 from 0, and the number of classes T."""

    numbers_N: Tensor
    classes: int

    def sum(self) -> Tensor:
        """[T]"""
        return self.numbers_N.bincount(minlength=self.classes).double()

    def add_products(self, sums_TD: Tensor, x_nD: Tensor, part: slice) -> None:
        """Adds the products of targets and features, summed over the samples in `part`."""
        sums_TD.index_add_(0, self.numbers_N[part], x_nD)


def fit_ridge(train_ND: Tensor, targets: Targets | OneHot, *, penalty: float = 1.0, total: Total = alone) -> Ridge:
    """Ridge regression on features that are standardised by the training samples; one solve, no decomposition.

    targets: on the device of the features. The weights are those of raw features. total: see `ridge_r2`.
    """
    count = total(torch.tensor(float(len(train_ND)), dtype=torch.float64, device=train_ND.device))
    mean_D, mean_T = total(train_ND.sum(0, dtype=torch.float64)) / count, total(targets.sum()) / count
    gram_DD = mean_D.new_zeros(len(mean_D), len(mean_D))
    cross_TD = mean_D.new_zeros(len(mean_T), len(mean_D))
    for i, rows_nD in enumerate(train_ND.split(ROWS)):
        x_nD = rows_nD.double() - mean_D
        gram_DD += x_nD.T @ x_nD
        targets.add_products(cross_TD, x_nD, slice(i * ROWS, i * ROWS + len(x_nD)))
    gram_DD, cross_TD = total(gram_DD), total(cross_TD)
    std_D = (gram_DD.diagonal() / (count - 1).clamp(min=1)).sqrt().clamp(min=1e-8)
    system_DD = gram_DD / torch.outer(std_D, std_D)
    system_DD.diagonal().add_(penalty)
    weights_DT = torch.cholesky_solve((cross_TD / std_D).T, torch.linalg.cholesky(system_DD)) / std_D[:, None]
    return Ridge(weights_DT, mean_T - mean_D @ weights_DT, penalty, [])


def _chunks(x_MD: Tensor, y_M: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x_MD.split(ROWS), y_M.split(ROWS), strict=True)


def _r2(predicted_NT: Tensor, true_NT: Tensor) -> Tensor:
    return 1 - (predicted_NT.double() - true_NT).square().sum(0) / _variation(true_NT)


def _variation(true_NT: Tensor) -> Tensor:
    """Sum of squared deviations from the mean, [T]."""
    return (true_NT - true_NT.mean(0)).square().sum(0)


def _check(x_ND: Tensor, y_NT: Tensor) -> None:
    if not torch.isfinite(x_ND).all():
        raise UsageError("the features of the regression contain NaN or Inf")
    if not torch.isfinite(y_NT).all():
        raise UsageError("the targets of the regression contain NaN or Inf")
    if len(x_ND) != len(y_NT) or y_NT.ndim != 2:
        raise UsageError(f"got {len(x_ND)} features and targets of shape {tuple(y_NT.shape)}, expected one row each")
