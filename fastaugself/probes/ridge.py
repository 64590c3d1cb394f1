"""Quick linear probes while training: ridge regression at one penalty, where regression.py chooses it on validation.

Shape suffixes: N training samples, M test samples, D features, T targets.
"""

import torch
from torch import Tensor


def ridge_accuracy(train_ND: Tensor, labels_N: Tensor, test_MD: Tensor, test_labels_M: Tensor) -> float:
    """Share of test samples whose class a linear probe names: ridge regression on the classes' indicators, in [0, 1].

    A quick stand-in for logistic regression while training; labels: int64 from 0.
    """
    classes = int(max(labels_N.max(), test_labels_M.max())) + 1
    indicators_NC = torch.nn.functional.one_hot(labels_N, classes)
    return float((_predict(train_ND, indicators_NC, test_MD, 1.0).argmax(1) == test_labels_M).double().mean())


def ridge_r2(
    train_ND: Tensor, targets_NT: Tensor, test_MD: Tensor, test_targets_MT: Tensor, *, penalty: float = 1.0
) -> float:
    """R2 on the test samples of a ridge regression on standardised features, averaged over targets.

    penalty: added to the diagonal of the features' correlation, in units of one sample. float64 throughout. R2 is
    1 - residual variance / variance of the test targets: 0 for predicting their mean, negative for worse.
    """
    residual = test_targets_MT.double() - _predict(train_ND, targets_NT, test_MD, penalty)
    spread = test_targets_MT.double() - test_targets_MT.double().mean(0)
    return float((1 - residual.square().sum(0) / spread.square().sum(0)).mean())


def _predict(train_ND: Tensor, targets_NT: Tensor, test_MD: Tensor, penalty: float) -> Tensor:
    x, y = train_ND.double(), targets_NT.double()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-8)
    x, x_test = (x - mean) / std, (test_MD.double() - mean) / std
    center = y.mean(0)
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ (y - center))
    return x_test @ weights + center
