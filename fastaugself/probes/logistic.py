"""Multinomial logistic regression by L-BFGS, made to go down a path of penalties.

Three things make the path cheap, and none moves an optimum. The pairs of steps and gradient changes that L-BFGS knows
the curvature by stay from one penalty to the next, since the penalty's own part of them is known and put right. The
first step to a new optimum goes on in the direction from the one before to the last. And logits are linear in the
weights, so a length is searched along a direction without another product with the features: an iteration takes two.

Shape suffixes: N samples, A features (in any axes), C classes.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MEMORY = 10  # pairs of L-BFGS
TRIES = 40  # lengths along a direction
NOTHING = 1e-30  # a probability below it counts as zero: products with denormal numbers take ten times as long


class Fit(NamedTuple):
    """gap: about how far the objective is from its optimum, as a part of itself or, where that is less, of what it
    fell from weights of zero; estimated as half the gradient times the quasi-Newton step. iterations: of L-BFGS."""

    gap: float
    iterations: int


class _Found(NamedTuple):
    """A length along a direction, and the logits, cross-entropy and its gradient there."""

    length: float
    logits_NC: Tensor
    loss: float
    residual_NC: Tensor


class Descent:
    """Minimises sum cross-entropy + penalty * |weights|^2, for one penalty after another from where the last ended.

    x_NA: features, whose dtype and device are computed in; steps are fewer in principal axes, where their curvature is
    about diagonal. labels_N: int64. weights_AC: the present ones, zero at first unless given.
    """

    def __init__(self, x_NA: Tensor, labels_N: Tensor, classes: int, weights_AC: Tensor | None = None) -> None:
        self.x_NA, self.labels_N1 = x_NA, labels_N.to(x_NA.device)[:, None]
        self.weights_AC = x_NA.new_zeros(x_NA.shape[1], classes)
        if weights_AC is not None:
            self.weights_AC += weights_AC
        self._power_A1 = x_NA.square().sum(0)[:, None]
        self._value_at_zero = len(x_NA) * math.log(classes)
        self._penalty = 0.0
        self._pairs: list[tuple[Tensor, Tensor]] = []  # of the weights' and the gradient's changes
        self._last: tuple[Tensor, Tensor] | None = None  # the whole way of the last fit: of weights, of logits
        logits_NC = x_NA @ self.weights_AC
        self._arrive(logits_NC, *cross_entropy(logits_NC, self.labels_N1))

    def fit(self, penalty: float, *, tolerance: float, max_iterations: int) -> Fit:
        """Moves `weights_AC` to the optimum of a penalty, until the gap is at most `tolerance`."""
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
            onward = 0.0 if last is None else _dot(gradient_AC, last[0])
            if last is not None and onward < 0 and self._advance(*last, onward):
                iterations += 1
                continue
            if not self._advance(along_AC, self.x_NA @ along_AC, slope):
                break  # as near as the arithmetic gets
            iterations += 1
        if iterations:
            self._last = self.weights_AC - begin_AC, self._logits_NC - begin_NC
        return Fit(gap, iterations)

    def _gradient_AC(self) -> Tensor:
        return torch.add(self._data_gradient_AC, self.weights_AC, alpha=2 * self._penalty)

    def _value(self) -> float:
        return self._loss + self._penalty * _dot(self.weights_AC, self.weights_AC)

    def _scale(self) -> float:
        """What a gap is a part of. The floor is what the arithmetic can tell from nothing."""
        value = self._value()
        return max(min(value, self._value_at_zero - value), torch.finfo(self.x_NA.dtype).eps * value)

    def _quasi_newton(self, gradient_AC: Tensor) -> Tensor:
        """The step of L-BFGS: Nocedal and Wright, Numerical Optimization, algorithm 7.4, from a diagonal curvature."""
        q_AC, shares = gradient_AC.clone(), []
        curvatures = [_dot(step_AC, change_AC) for step_AC, change_AC in self._pairs]
        for (step_AC, change_AC), curvature in zip(reversed(self._pairs), reversed(curvatures), strict=True):
            shares.append(_dot(step_AC, q_AC) / curvature)
            q_AC.sub_(change_AC, alpha=shares[-1])
        inverse_AC = 1 / (self._power_A1 * self._spread_C + 2 * self._penalty)
        if self._pairs:
            change_AC = self._pairs[-1][1]
            inverse_AC *= curvatures[-1] / _dot(change_AC, inverse_AC * change_AC)
        q_AC *= inverse_AC
        for (step_AC, change_AC), curvature, share in zip(self._pairs, curvatures, reversed(shares), strict=True):
            q_AC.add_(step_AC, alpha=share - _dot(change_AC, q_AC) / curvature)
        return q_AC.neg_()

    def _advance(self, along_AC: Tensor, along_NC: Tensor, slope: float) -> bool:
        """One step along a direction, of a length that at least halves the slope of the objective.

        It is convex, so its slope rises: where it is still falling steeply the step is too short, else too long.
        """
        found = self._search(along_AC, along_NC, slope)
        if found is None:
            return False
        before_AC, step_AC = self._data_gradient_AC, along_AC * found.length
        self.weights_AC = self.weights_AC + step_AC
        self._arrive(found.logits_NC, found.loss, found.residual_NC)
        change_AC = (self._data_gradient_AC - before_AC).add_(step_AC, alpha=2 * self._penalty)
        if _dot(step_AC, change_AC) > 0:
            self._pairs = [*self._pairs[1 - MEMORY :], (step_AC, change_AC)]
        return True

    def _search(self, along_AC: Tensor, along_NC: Tensor, slope: float) -> "_Found | None":
        """The length of a step; None where rounding hides the way down."""
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
                return _Found(length, logits_NC, loss, residual_NC)
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

    def _arrive(self, logits_NC: Tensor, loss: float, residual_NC: Tensor) -> None:
        """Takes over what belongs to the present weights."""
        self._logits_NC, self._loss = logits_NC, loss
        self._data_gradient_AC = self.x_NA.T @ residual_NC
        share_NC = residual_NC.abs_()  # p (1 - p) is |p - y| (1 - |p - y|)
        self._spread_C = (share_NC - share_NC.square()).mean(0)


def cross_entropy(logits_NC: Tensor, labels_N1: Tensor) -> tuple[float, Tensor]:
    """(sum over samples, its gradient by the logits), exact also where a sample is all but certain.

    p - y loses its digits where p is near 1; from the odds of the other classes to the sample's own it does not.
    """
    others_NC = logits_NC.scatter(1, labels_N1, -math.inf)
    odds_N1 = others_NC.logsumexp(1, keepdim=True)
    margin_N1 = odds_N1 - logits_NC.gather(1, labels_N1)
    wrong_N1 = margin_N1.sigmoid()
    gradient_NC = others_NC.sub_(odds_N1).exp_().mul_(wrong_N1)
    F.threshold(gradient_NC, NOTHING, 0.0, inplace=True)
    gradient_NC.scatter_(1, labels_N1, -wrong_N1)
    return float(F.softplus(margin_N1).sum(dtype=torch.float64)), gradient_NC


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))
