"""Gradient clipping against torch's, with loss scaling, micro-batches and frozen parameters."""

import copy
import math

import pytest
import torch
from torch import nn

from fastaugself.config.optim import Optim
from fastaugself.training.optim import (
    clip_gradients,
    make_optimizer,
    set_learning_rate,
)
from fastaugself.training.step import TrainStep


@pytest.mark.parametrize("by", ["global", "parameter"])
@pytest.mark.parametrize("most", [0.5, 1e3])
def test_clipping_is_that_of_torch(by, most):
    random = torch.Generator().manual_seed(100)
    shapes = ((3, 5), (4, 3, 3, 3), (7, 1), (2, 2))
    gradients = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    clipped, expected = ([nn.Parameter(torch.ones_like(g)) for g in gradients] for _ in range(2))
    clipped.append(nn.Parameter(torch.ones(3, dtype=torch.float64)))  # without a gradient, as if frozen
    for parameters in (clipped, expected):
        for p, g in zip(parameters, gradients, strict=False):
            p.grad = g.clone()
    total = clip_gradients(torch.optim.SGD(clipped, 0.1), most, by)
    norms = [torch.nn.utils.clip_grad_norm_(p, most) for p in (expected if by == "parameter" else [expected])]
    assert float(total) == pytest.approx(math.hypot(*map(float, norms)))
    for p, q in zip(clipped, expected, strict=False):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-9)
    assert clipped[-1].grad is None


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_clipped_step_with_loss_scaling_is_the_step_without_and_overflows_are_skipped(name):
    from tiny_steps import METHODS, assert_same, batch, learner_of, tensors

    def steps(*, scaled):
        learner = learner_of(METHODS["simclr"])
        optimizer = make_optimizer(learner, Optim(name=name, lr=0.1))
        step = TrainStep(learner, optimizer, device=torch.device("cpu"), clip_grad=0.3)
        step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        norms, kept = [], learner.state_dict()
        for i in range(3):
            set_learning_rate(optimizer, 0.1, 0.1)
            views = batch(i)
            if i == 1 and scaled:  # an overflow: Inf in the gradients
                step.learner.method.after_backward = lambda _: next(learner.parameters()).grad.fill_(math.inf)
                before = copy.deepcopy([p.detach() for p in learner.parameters()])
                step(batch(7), global_step=9, progress=0.2)
                assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))
                assert step.scaler.get_scale() == 2.0**9
                del step.learner.method.after_backward
                learner.load_state_dict(kept)
            norms.append(float(step(views, global_step=i, progress=0.1).metrics["grad_norm"]))
            kept = copy.deepcopy(learner.state_dict())
        return norms, tensors(step)

    (norms, plain), (scaled_norms, scaled) = steps(scaled=False), steps(scaled=True)
    assert min(norms) > 0.3  # all are clipped
    assert scaled_norms == pytest.approx(norms, rel=1e-4)
    assert_same(plain, scaled, rtol=1e-3, atol=1e-4)


def test_micro_batches_are_clipped_once_together():
    from tiny_steps import METHODS, assert_same, learner_of, take, tensors

    def steps(accumulate):
        learner = learner_of(METHODS["moco"], norm=False, weights={"crop": 0.0, "color": 0.0})  # no batch norm
        optimizer = make_optimizer(learner, Optim(lr=0.1))
        step = TrainStep(
            learner, optimizer, device=torch.device("cpu"), accumulate=accumulate, clip_grad=0.2, clip_by="parameter"
        )
        take(step, 2)
        return tensors(step)

    assert_same(steps(1), steps(2), rtol=1e-4, atol=1e-6)
