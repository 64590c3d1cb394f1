"""The linear probe: multinomial logistic regression on frozen features, its l2 penalty chosen on validation.

The objective is the one published with AugSelf (Lee 2021, arXiv 2111.09613): the sum of the cross-entropy over samples
plus `penalty` times the squares of all weights and biases, on raw features, for 45 penalties from 1e-6 to 1e5, each
fitted from the solution of the one before; the best on validation is fitted again on train and validation together.
The optimum of each is unique, so how it is found does not matter, and here it is found sooner: L-BFGS runs in the
features' principal axes, each scaled by its curvature.

Shape suffixes: N samples, D features, A axes, C classes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError

PENALTIES: tuple[float, ...] = tuple(np.logspace(-6, 5, 45).tolist())
PATH_TOLERANCE, FINAL_TOLERANCE = 1e-3, 1e-9  # estimated distance from the optimum, in parts of the objective
MAX_ITERATIONS = 5000


class Probe(NamedTuple):
    """weights_DC, bias_C: of the classifier, float64. gap: about how far the objective is from its optimum, in parts
    of itself, as estimated from its gradient. iterations: of L-BFGS."""

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
        self.axes_DA, self.power_A = axes_DD[:, kept], power_D[kept]
        self.x_NA = x @ self.axes_DA


def fit(
    axes: Axes,
    labels_N: Tensor,
    classes: int,
    penalty: float,
    *,
    start_AC: Tensor | None = None,
    tolerance: float = FINAL_TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, float, int]:
    """(weights in the axes [A, C], gap, iterations) that minimise sum cross-entropy + penalty * |weights|^2.

    start_AC: where to begin. tolerance: where to stop.
    """
    x_NA, labels_N = axes.x_NA, labels_N.to(axes.x_NA.device)
    weights_AC = torch.zeros(x_NA.shape[1], classes, dtype=x_NA.dtype, device=x_NA.device)
    if start_AC is not None:
        weights_AC += start_AC
    done, gap = 0, float("inf")
    while done < max_iterations and gap > tolerance:
        p_NC = (x_NA @ weights_AC).softmax(1)
        spread = float((p_NC * (1 - p_NC)).mean())
        scale_A1 = (spread * axes.power_A + 2 * penalty).rsqrt()[:, None]
        inner_AC = (weights_AC / scale_A1).requires_grad_()

        def objective(inner_AC: Tensor = inner_AC, scale_A1: Tensor = scale_A1) -> Tensor:
            own_AC = inner_AC * scale_A1
            return F.cross_entropy(x_NA @ own_AC, labels_N, reduction="sum") + penalty * own_AC.square().sum()

        optimizer = torch.optim.LBFGS(
            [inner_AC],
            lr=1,
            max_iter=10,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )
        before = done
        for _ in range(10):  # then the curvature is measured again
            value, gradient_AC = _run(optimizer, objective, inner_AC)
            done += 10
            # In these coordinates the curvature is about 1, hence half the squared gradient.
            gap = float(0.5 * gradient_AC.square().sum() / max(value, 1e-300))
            if gap <= tolerance or done >= max_iterations:
                break
        moved = inner_AC.detach() * scale_A1
        if before and torch.equal(moved, weights_AC):
            break  # as near as the arithmetic gets
        weights_AC = moved
    return weights_AC, gap, done


def _run(optimizer: torch.optim.LBFGS, objective: Callable[[], Tensor], inner_AC: Tensor) -> tuple[float, Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    optimizer.step(closure)
    value = float(closure().detach())
    assert inner_AC.grad is not None
    return value, inner_AC.grad


def fit_probe(
    x_ND: Tensor, labels_N: Tensor, *, penalty: float, classes: int = 0, device: torch.device | None = None
) -> Probe:
    """The probe at one penalty. x_ND: features. labels_N: int64. Raises UsageError for features that are not finite."""
    _check(x_ND, labels_N)
    axes = Axes(x_ND, device or x_ND.device)
    weights_AC, gap, iterations = fit(axes, labels_N, classes or int(labels_N.max()) + 1, penalty)
    whole = axes.axes_DA @ weights_AC
    return Probe(whole[:-1].cpu(), whole[-1].cpu(), gap, iterations)


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
    device = device or train_ND.device
    classes = int(torch.cat([train_labels_N, val_labels_N]).max()) + 1
    axes = Axes(train_ND, device)
    ones = torch.ones(len(val_ND), 1, dtype=torch.float64, device=device)
    val_NA = torch.cat([val_ND.to(device, torch.float64), ones], 1) @ axes.axes_DA
    weights_AC, path = None, []
    for penalty in sorted(penalties, reverse=True):
        weights_AC, _, _ = fit(axes, train_labels_N, classes, penalty, start_AC=weights_AC, tolerance=PATH_TOLERANCE)
        path.append((penalty, _accuracy((val_NA @ weights_AC).argmax(1).cpu(), val_labels_N, metric)))
    best = max(accuracy for _, accuracy in path)
    penalty = next(p for p, accuracy in path if accuracy == best)
    both, labels = torch.cat([train_ND, val_ND]), torch.cat([train_labels_N, val_labels_N])
    probe = fit_probe(both, labels, penalty=penalty, classes=classes, device=device)
    return Choice(probe, penalty, path[::-1])


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
