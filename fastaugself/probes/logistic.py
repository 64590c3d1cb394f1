"""Multinomial logistic regression by L-BFGS along a path of penalties, with warm starts.

Three things make the path cheap; none of them changes an optimum.
- The L-BFGS memory (pairs of steps and gradient changes) is kept from one penalty to the next: the penalty's own
  contribution to the gradient changes is known exactly, so it is corrected.
- The first step towards a new optimum extrapolates the step between the two previous optima.
- Logits are linear in the weights, so the line search needs no further product with the features: an iteration has two.

Shape suffixes: N samples, A features (in any axes), C classes.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MEMORY = 10  # pairs kept by L-BFGS
TRIES = 40  # step lengths tried in a line search
TINY = 1e-30  # smaller probabilities become zero: products with denormal numbers take ten times as long


class Fit(NamedTuple):
    """The result of a fit.

    gap: estimated distance of the objective from its optimum, half the gradient times the quasi-Newton step, relative
    to the objective or to its decrease from zero weights, whichever is smaller. iterations: of L-BFGS.
    """

    gap: float
    iterations: int


class _Point(NamedTuple):
    """An accepted step length, with the logits, the cross-entropy and its gradient by the logits there."""

    length: float
    logits_NC: Tensor
    loss: float
    residual_NC: Tensor


class Descent:
    """Minimises sum cross-entropy + penalty * |weights|^2, one penalty after another, each from the previous optimum.

    x_NA: features; their dtype and device are used throughout. Principal axes converge fastest, since the curvature is
    nearly diagonal there. labels_N: int64. weights_AC: current weights, initially zero unless given.
    """

    def __init__(self, x_NA: Tensor, labels_N: Tensor, classes: int, weights_AC: Tensor | None = None) -> None:
        self.x_NA, self.labels_N1 = x_NA, labels_N.to(x_NA.device)[:, None]
        self.weights_AC = x_NA.new_zeros(x_NA.shape[1], classes)
        if weights_AC is not None:
            self.weights_AC += weights_AC
        self._power_A1 = x_NA.square().sum(0)[:, None]
        self._value_at_zero = len(x_NA) * math.log(classes)
        self._penalty = 0.0
        self._pairs: list[tuple[Tensor, Tensor]] = []  # (step, gradient change)
        self._last: tuple[Tensor, Tensor] | None = None  # change of weights and logits over the previous fit
        logits_NC = x_NA @ self.weights_AC
        self._move_to(logits_NC, *cross_entropy(logits_NC, self.labels_N1))

    def fit(self, penalty: float, *, tolerance: float, max_iterations: int) -> Fit:
        """Moves `weights_AC` to the optimum of a penalty; stops where the gap is at most `tolerance`."""
        for step_AC, change_AC in self._pairs:
            change_AC.add_(step_AC, alpha=2 * (penalty - self._penalty))
        self._penalty = penalty
        begin_AC, begin_NC, gap, iterations = self.weights_AC, self._logits_NC, math.inf, 0
        while iterations < max_iterations:
            gradient_AC = self._gradient_AC()
            along_AC = self._quasi_newton(gradient_AC)
            slope = _dot(gradient_AC, along_AC)
            gap = -0.5 * slope / self._scale()
            if gap <= tolerance:
                break
            last, self._last = self._last, None
            last_slope = 0.0 if last is None else _dot(gradient_AC, last[0])
            if last is not None and last_slope < 0 and self._advance(*last, last_slope):
                iterations += 1
                continue
            if not self._advance(along_AC, self.x_NA @ along_AC, slope):
                break  # limited by rounding
            iterations += 1
        if iterations:
            self._last = self.weights_AC - begin_AC, self._logits_NC - begin_NC
        return Fit(gap, iterations)

    def _gradient_AC(self) -> Tensor:
        return torch.add(self._data_gradient_AC, self.weights_AC, alpha=2 * self._penalty)

    def _value(self) -> float:
        return self._loss + self._penalty * _dot(self.weights_AC, self.weights_AC)

    def _scale(self) -> float:
        """Denominator of the relative gap, at least the rounding error of the objective."""
        value = self._value()
        return max(min(value, self._value_at_zero - value), torch.finfo(self.x_NA.dtype).eps * value)

    def _quasi_newton(self, gradient_AC: Tensor) -> Tensor:
        """L-BFGS direction, diagonal initial Hessian (Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
        q_AC, alphas = gradient_AC.clone(), []
        curvatures = [_dot(step_AC, change_AC) for step_AC, change_AC in self._pairs]
        for (step_AC, change_AC), curvature in zip(reversed(self._pairs), reversed(curvatures), strict=True):
            alphas.append(_dot(step_AC, q_AC) / curvature)
            q_AC.sub_(change_AC, alpha=alphas[-1])
        inverse_AC = 1 / (self._power_A1 * self._curvature_C + 2 * self._penalty)
        if self._pairs:
            change_AC = self._pairs[-1][1]
            inverse_AC *= curvatures[-1] / _dot(change_AC, inverse_AC * change_AC)
        q_AC *= inverse_AC
        for (step_AC, change_AC), curvature, alpha in zip(self._pairs, curvatures, reversed(alphas), strict=True):
            q_AC.add_(step_AC, alpha=alpha - _dot(change_AC, q_AC) / curvature)
        return q_AC.neg_()

    def _advance(self, along_AC: Tensor, along_NC: Tensor, slope: float) -> bool:
        """One step along a direction that at least halves the slope of the objective; False if there is none.

        The objective is convex, so its slope increases along the direction: a steep descent means the step is too
        short, a steep ascent that it is too long.
        """
        point = self._search(along_AC, along_NC, slope)
        if point is None:
            return False
        before_AC, step_AC = self._data_gradient_AC, along_AC * point.length
        self.weights_AC = self.weights_AC + step_AC
        self._move_to(point.logits_NC, point.loss, point.residual_NC)
        change_AC = (self._data_gradient_AC - before_AC).add_(step_AC, alpha=2 * self._penalty)
        if _dot(step_AC, change_AC) > 0:
            self._pairs = [*self._pairs[1 - MEMORY :], (step_AC, change_AC)]
        return True

    def _search(self, along_AC: Tensor, along_NC: Tensor, slope: float) -> _Point | None:
        """Line search; None where rounding hides the descent."""
        w_w, w_d, d_d = (
            self._penalty * _dot(a, b)
            for a, b in ((self.weights_AC,) * 2, (self.weights_AC, along_AC), (along_AC, along_AC))
        )
        allowed = (self._loss + w_w) * (1 + 8 * torch.finfo(along_AC.dtype).eps)
        length, short, long = 1.0, (0.0, slope), None
        for _ in range(TRIES):
            logits_NC = torch.add(self._logits_NC, along_NC, alpha=length)
            loss, residual_NC = cross_entropy(logits_NC, self.labels_N1)
            here = _dot(residual_NC, along_NC) + 2 * (w_d + length * d_d)
            if abs(here) <= 0.5 * -slope and loss + w_w + length * (2 * w_d + length * d_d) <= allowed:
                return _Point(length, logits_NC, loss, residual_NC)
            if here < 0:
                short = (length, here)
            else:
                long = (length, here)
            if long is None:
                length *= 2
                continue
            span = long[0] - short[0]
            length = short[0] + span * min(max(short[1] / (short[1] - long[1]), 0.1), 0.9)
        return None

    def _move_to(self, logits_NC: Tensor, loss: float, residual_NC: Tensor) -> None:
        """Stores the loss, logits, gradient and curvature at the current weights."""
        self._logits_NC, self._loss = logits_NC, loss
        self._data_gradient_AC = self.x_NA.T @ residual_NC
        error_NC = residual_NC.abs_()  # p (1 - p) is |p - y| (1 - |p - y|)
        self._curvature_C = (error_NC - error_NC.square()).mean(0)


def cross_entropy(logits_NC: Tensor, labels_N1: Tensor) -> tuple[float, Tensor]:
    """(cross-entropy summed over samples, its gradient by the logits), accurate for confident predictions too.

    p - y loses precision by cancellation where p is near 1; computed from the odds of the other classes it does not.
    """
    others_NC = logits_NC.scatter(1, labels_N1, -math.inf)
    odds_N1 = others_NC.logsumexp(1, keepdim=True)
    margin_N1 = odds_N1 - logits_NC.gather(1, labels_N1)
    wrong_N1 = margin_N1.sigmoid()
    gradient_NC = others_NC.sub_(odds_N1).exp_().mul_(wrong_N1)
    F.threshold(gradient_NC, TINY, 0.0, inplace=True)
    gradient_NC.scatter_(1, labels_N1, -wrong_N1)
    return float(F.softplus(margin_N1).sum(dtype=torch.float64)), gradient_NC


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))
