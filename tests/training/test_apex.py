"""NVIDIA apex's optimizers, by stand-ins with their arguments and formulas."""

import dataclasses
import math
import sys
import types

import pytest
import torch
from torch import nn
from torch.optim.optimizer import required

from fastaugself.config.optim import Optim
from fastaugself.errors import UsageError
from fastaugself.training.optim import (
    make_optimizer,
)
from fastaugself.training.step import TrainStep


def test_unsupported_options_of_apex_are_refused_before_it_is_imported():
    with pytest.raises(UsageError, match="apex has no fused LARS"):
        Optim(name="lars", implementation="apex")
    for options in ({}, {"decay_norm_bias": False, "weight_decay": 0.0}):
        with pytest.raises(UsageError, match=r"pass --optim\.no-decay-norm-bias( --optim\.weight-decay 0\.0001)?, or"):
            Optim(name="lamb", implementation="apex", **options)


class ApexOptimizer(torch.optim.Optimizer):
    """Base class of stand-ins for NVIDIA apex's optimizers; `zero_grad` takes no options."""

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is None
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, self.state[p], group)


class FusedSGD(ApexOptimizer):
    """Arguments as in NVIDIA apex 25.09; so are those of the other stand-ins."""

    def __init__(
        self,
        params,
        lr=required,
        momentum=0,
        dampening=0,
        weight_decay=0,
        nesterov=False,
        wd_after_momentum=False,
        materialize_master_grads=True,
        set_grad_none=False,
    ):
        assert not (dampening or nesterov or wd_after_momentum)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def update(self, p, grad, state, group):
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(p))
        buffer.mul_(group["momentum"]).add_(grad + group["weight_decay"] * p)
        p.sub_(group["lr"] * buffer)


class FusedAdam(ApexOptimizer):
    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-8,
        adam_w_mode=True,
        weight_decay=0.0,
        amsgrad=False,
        set_grad_none=True,
        capturable=False,
        master_weights=False,
    ):
        assert bias_correction and adam_w_mode and not (amsgrad or capturable or master_weights)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def direction(self, p, grad, state, group):
        for name in ("exp_avg", "exp_avg_sq"):
            state.setdefault(name, torch.zeros_like(p))
        (b1, b2), t = group["betas"], group["step"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.mul_(b1).add_((1 - b1) * grad)
        v.mul_(b2).add_((1 - b2) * grad * grad)
        return (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + group["eps"]) + group["weight_decay"] * p

    def update(self, p, grad, state, group):
        p.sub_(group["lr"] * self.direction(p, grad, state, group))


class FusedLAMB(FusedAdam):
    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=0.01,
        amsgrad=False,
        adam_w_mode=True,
        grad_averaging=True,
        set_grad_none=True,
        max_grad_norm=1.0,
        use_nvlamb=False,
    ):
        assert max_grad_norm == math.inf and not use_nvlamb
        super().__init__(params, lr, bias_correction, betas, eps, adam_w_mode, weight_decay, amsgrad)

    def update(self, p, grad, state, group):
        update = self.direction(p, grad, state, group)
        w, u = p.norm(), update.norm()
        ratio = w / u if group["weight_decay"] and w > 0 and u > 0 else 1.0  # use_nvlamb would drop this condition
        p.sub_(group["lr"] * ratio * update)


@pytest.mark.parametrize(("name", "cls"), [("sgd", FusedSGD), ("adamw", FusedAdam), ("lamb", FusedLAMB)])
def test_apex_optimizers_train_and_resume_like_those_of_torch(name, cls, monkeypatch, tmp_path):
    """With the trainer's step; the stand-ins have apex's arguments and formulas, not its kernels."""
    from tiny_steps import METHODS, assert_same, learner_of, take, tensors

    apex, parts = types.ModuleType("apex"), types.ModuleType("apex.optimizers")
    apex.__path__ = []
    setattr(parts, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "apex", apex)
    monkeypatch.setitem(sys.modules, "apex.optimizers", parts)
    options = Optim(name=name, weight_decay=0.05, decay_norm_bias=False, norm_bias_lr_scale=0.5)

    def step_with(implementation):
        learner = learner_of(
            METHODS["moco"], norm=False
        )  # batch norm makes some gradients 0 up to rounding, which Adam would magnify
        with monkeypatch.context() as patch:
            patch.setattr(nn.Parameter, "is_cuda", implementation == "apex", raising=False)
            chosen = dataclasses.replace(options, implementation=implementation)
            optimizer = make_optimizer(learner, chosen, constant_lr=learner.method.constant_lr)
        return TrainStep(learner, optimizer, device=torch.device("cpu"))

    torchs, apexs = step_with("torch"), step_with("apex")
    assert type(apexs.optimizer) is cls
    take(torchs, 4)
    take(apexs, 2)
    torch.save((apexs.learner.state_dict(), apexs.optimizer.state_dict()), tmp_path / "state.pt")
    again = step_with("apex")
    learner, optimizer = torch.load(tmp_path / "state.pt", weights_only=True)
    again.learner.load_state_dict(learner)
    again.optimizer.load_state_dict(optimizer)
    take(again, 2, first=2)
    assert_same(tensors(torchs), tensors(again), rtol=1e-4, atol=1e-5)


def test_apex_needs_cuda(monkeypatch):
    for name in ("apex", "apex.optimizers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["apex"].__path__ = []
    with pytest.raises(UsageError, match=r"--optim\.implementation apex needs CUDA"):
        make_optimizer(nn.Linear(2, 2), Optim(implementation="apex"))
