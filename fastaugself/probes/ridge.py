"""Ridge regression on frozen features: with the penalty chosen on a validation split, and at one penalty.

Shape suffixes: N training samples, M test samples, D features, T targets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .linear import PENALTIES


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


def ridge_accuracy(train_ND: Tensor, labels_N: Tensor, test_MD: Tensor, test_labels_M: Tensor) -> float:
    """Top-1 accuracy on the test samples, in [0, 1], of a ridge regression on one-hot labels.

    A quick stand-in for logistic regression during training. Features are standardised as in `ridge_r2`.
    labels_N, test_labels_M: int64.
    """
    values_C, numbers_N = labels_N.unique(return_inverse=True)
    one_hot_NC = torch.nn.functional.one_hot(numbers_N, len(values_C))
    predicted_M = values_C[_predict(train_ND, one_hot_NC, test_MD, 1.0).argmax(1)]
    return float((predicted_M == test_labels_M).double().mean())


def ridge_r2(
    train_ND: Tensor, targets_NT: Tensor, test_MD: Tensor, test_targets_MT: Tensor, *, penalty: float = 1.0
) -> float:
    """R2 on the test samples, averaged over targets, of a ridge regression on standardised features.

    penalty: factor of the squared weights, in units of one sample. float64 throughout. NaN or -Inf where a target is
    constant on the test samples.
    """
    return float(_r2(_predict(train_ND, targets_NT, test_MD, penalty), test_targets_MT.double()).mean())


def _r2(predicted_NT: Tensor, true_NT: Tensor) -> Tensor:
    return 1 - (predicted_NT.double() - true_NT).square().sum(0) / _variation(true_NT)


def _variation(true_NT: Tensor) -> Tensor:
    """Sum of squared deviations from the mean, [T]."""
    return (true_NT - true_NT.mean(0)).square().sum(0)


def _predict(train_ND: Tensor, targets_NT: Tensor, test_MD: Tensor, penalty: float) -> Tensor:
    """Predictions at one penalty, on features standardised by the training split; one solve, no decomposition."""
    x, y = train_ND.double(), targets_NT.double()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-8)
    x, x_test = (x - mean) / std, (test_MD.double() - mean) / std
    center = y.mean(0)
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ (y - center))
    return x_test @ weights + center


def _check(x_ND: Tensor, y_NT: Tensor) -> None:
    if not torch.isfinite(x_ND).all():
        raise UsageError("the features of the regression contain NaN or Inf")
    if not torch.isfinite(y_NT).all():
        raise UsageError("the targets of the regression contain NaN or Inf")
    if len(x_ND) != len(y_NT) or y_NT.ndim != 2:
        raise UsageError(f"got {len(x_ND)} features and targets of shape {tuple(y_NT.shape)}, expected one row each")
