"""Regression of known values from frozen features: ridge regression whose penalty is chosen on validation.

Shape suffixes: N samples, D features, T targets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .linear import PENALTIES


class Ridge(NamedTuple):
    """prediction = x @ weights_DT + bias_T, float64. penalty: on the squared weights, the bias is free.

    path: (penalty, R2 on validation) of all tried.
    """

    weights_DT: Tensor
    bias_T: Tensor
    penalty: float
    path: list[tuple[float, float]]

    def predict(self, x_ND: Tensor) -> Tensor:
        """Float64 [N, T]."""
        return x_ND.double().to(self.weights_DT.device) @ self.weights_DT + self.bias_T


class _Solver:
    """All ridge solutions of one training set, from one decomposition."""

    def __init__(self, x_ND: Tensor, y_NT: Tensor) -> None:
        self.x_mean, self.y_mean = x_ND.double().mean(0), y_NT.double().mean(0)
        x = x_ND.double() - self.x_mean
        power_D, self.axes_DD = torch.linalg.eigh(x.T @ x)
        self.power_D = power_D.clamp(min=0)
        self.cross_DT = self.axes_DD.T @ (x.T @ (y_NT.double() - self.y_mean))

    def weights(self, penalty: float) -> Tensor:
        return self.axes_DD @ (self.cross_DT / (self.power_D + penalty)[:, None])

    def solution(self, penalty: float, path: list[tuple[float, float]]) -> Ridge:
        weights = self.weights(penalty)
        return Ridge(weights, self.y_mean - self.x_mean @ weights, penalty, path)


def choose_ridge(
    train_ND: Tensor, train_NT: Tensor, val_ND: Tensor, val_NT: Tensor, *, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """The minimum of |y - xW - b|^2 + penalty |W|^2 at the penalty with the best mean R2 on validation, found on both.

    Raises UsageError for values that are not finite.
    """
    _check(train_ND, train_NT)
    _check(val_ND, val_NT)
    solver = _Solver(train_ND, train_NT)
    path = [(p, float(np.mean(r2(solver.solution(p, []).predict(val_ND), val_NT)))) for p in penalties]
    penalty = max(reversed(path), key=lambda entry: entry[1])[0]
    both_x, both_y = torch.cat([train_ND, val_ND]), torch.cat([train_NT, val_NT])
    return _Solver(both_x, both_y).solution(penalty, path)


def r2(predicted_NT: Tensor, true_NT: Tensor) -> list[float]:
    """1 - residual / variance of each target: 1 is perfect, 0 is their mean, negative is worse than that.

    Raises UsageError for a target that never changes.
    """
    true_NT = true_NT.double().to(predicted_NT.device)
    spread_T = (true_NT - true_NT.mean(0)).square().sum(0)
    if bool((spread_T <= 1e-12 * true_NT.square().sum(0).clamp(min=1e-12)).any()):
        column = int((spread_T <= 1e-12 * true_NT.square().sum(0).clamp(min=1e-12)).nonzero()[0])
        raise UsageError(f"target {column} is the same for all {len(true_NT)} samples: there is nothing to predict")
    residual_T = (predicted_NT.double() - true_NT).square().sum(0)
    return (1 - residual_T / spread_T).tolist()


def _check(x_ND: Tensor, y_NT: Tensor) -> None:
    if not torch.isfinite(x_ND).all():
        raise UsageError("features of the regression are not finite")
    if not torch.isfinite(y_NT).all():
        raise UsageError("targets of the regression are not finite")
    if len(x_ND) != len(y_NT) or y_NT.ndim != 2:
        raise UsageError(f"{len(x_ND)} features came with targets of shape {tuple(y_NT.shape)}")
