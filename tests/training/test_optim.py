"""Optimizers against plain formulas, torch and timm, and their parameter groups."""

import copy
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
from fastaugself.training.lamb import Lamb
from fastaugself.training.lars import Lars
from fastaugself.training.optim import (
    clip_gradients,
    load_state,
    make_optimizer,
    set_learning_rate,
    set_weight_decay,
    weight_decay,
)
from fastaugself.training.step import TrainStep

SHAPES = [(3, 5), (4, 3, 3, 3), (7, 1), (2, 2)]


def weights(seed=0):
    random = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]
    made[3].zero_()  # a layer whose norm is 0
    return made


def gradients(step):
    random = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]


def trained(make, steps=4):
    parameters = [nn.Parameter(w) for w in weights()]
    optimizer = make(parameters)
    for step in range(steps):
        for p, g in zip(parameters, gradients(step), strict=True):
            p.grad = g.clone()
        optimizer.step()
    return [p.detach() for p in parameters]


def assert_close(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def test_lars_is_its_formula():
    lr, momentum, decay, trust = 0.3, 0.9, 0.02, 0.01
    expected, velocity = weights(), [torch.zeros(s, dtype=torch.float64) for s in SHAPES]
    for step in range(4):
        for i, g in enumerate(gradients(step)):
            w = expected[i]
            u = g + decay * w
            ratio = trust * w.norm() / u.norm() if w.norm() > 0 and u.norm() > 0 else 1.0
            velocity[i] = momentum * velocity[i] + ratio * u
            expected[i] = w - lr * velocity[i]
    assert_close(
        trained(lambda p: Lars(p, lr, momentum=momentum, weight_decay=decay, trust_coefficient=trust)), expected
    )


def test_a_velocity_with_the_learning_rate_in_it_is_its_formula_and_equal_at_a_constant_rate():
    """v = momentum * v + lr * ratio * u;  w = w - v (SimCLR's LARS), with a learning rate that rises."""
    expected, velocity = weights(), [torch.zeros(s, dtype=torch.float64) for s in SHAPES]
    parameters = [nn.Parameter(w) for w in weights()]
    optimizer = Lars(parameters, 0.0, weight_decay=0.02, trust_coefficient=0.01, lr_in_velocity=True)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = lr = 0.1 * (step + 1)
        for i, g in enumerate(gradients(step)):
            parameters[i].grad, w = g.clone(), expected[i]
            u = g + 0.02 * w
            ratio = 0.01 * w.norm() / u.norm() if w.norm() > 0 else 1.0
            velocity[i] = 0.9 * velocity[i] + lr * ratio * u
            expected[i] = w - velocity[i]
        optimizer.step()
    assert_close([p.detach() for p in parameters], expected)
    inside, outside = (trained(lambda p, i=i: Lars(p, 0.3, weight_decay=0.02, lr_in_velocity=i)) for i in (True, False))
    assert_close(inside, outside)


def norms_and_weights(**options):
    """Two steps of LARS on a layer with batch norm, whose loss is multiplied by `factor`."""
    factor = options.pop("factor", 1.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()
    nn.init.uniform_(model[1].weight)
    optimizer = make_optimizer(model, Optim(name="lars", lr=0.3, decay_norm_bias=False, **options))
    x = torch.randn(16, 4, dtype=torch.float64)
    for _ in range(2):
        set_learning_rate(optimizer, 0.3, 0.3)
        optimizer.zero_grad()
        (factor * model(x).square().mean()).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def test_twice_the_loss_is_half_the_decay_and_twice_the_rate_of_norms_in_lars():
    """How imagenet_simclr_augself.py trains with the sum of the loss over both views."""
    summed = norms_and_weights(factor=2.0, weight_decay=1e-2)
    assert_close(norms_and_weights(weight_decay=0.5e-2, norm_bias_lr_scale=2.0), summed)
    assert any(not torch.allclose(a, b) for a, b in zip(norms_and_weights(weight_decay=1e-2), summed, strict=True))


def test_lars_scales_the_steps_of_norms_and_biases_on_request():
    plain, adapted = (norms_and_weights(weight_decay=0.0, adapt_norm_bias=adapt) for adapt in (False, True))
    start = norms_and_weights(weight_decay=0.0, trust_coefficient=0.0, adapt_norm_bias=True)  # steps of length 0
    moved = [[float((a - b).norm()) for a, b in zip(run, start, strict=True)] for run in (plain, adapted)]
    weight_of_norm = 2  # after the weight and the bias of the first layer
    assert moved[1][weight_of_norm] < 0.1 * moved[0][weight_of_norm]
    for options in ({"name": "sgd"}, {"name": "lamb", "implementation": "apex"}):
        with pytest.raises(UsageError, match=r"--optim\.no-adapt-norm-bias"):
            Optim(**{"decay_norm_bias": False, **options}, adapt_norm_bias=True)


def test_lamb_is_its_algorithm():
    lr, (b1, b2), eps, decay = 0.05, (0.8, 0.95), 1e-3, 0.02
    expected = weights()
    m, v = ([torch.zeros(s, dtype=torch.float64) for s in SHAPES] for _ in range(2))
    for step in range(4):
        for i, g in enumerate(gradients(step)):
            w = expected[i]
            m[i], v[i] = b1 * m[i] + (1 - b1) * g, b2 * v[i] + (1 - b2) * g * g
            t = step + 1
            r = (m[i] / (1 - b1**t)) / ((v[i] / (1 - b2**t)).sqrt() + eps) + decay * w
            ratio = w.norm() / r.norm() if w.norm() > 0 and r.norm() > 0 else 1.0
            expected[i] = w - lr * ratio * r
    assert_close(trained(lambda p: Lamb(p, lr, betas=(b1, b2), eps=eps, weight_decay=decay)), expected)


OVERFLOWS = (0, 3)  # steps whose scaled gradients have Inf or NaN


@pytest.mark.parametrize("cls", [Lars, Lamb])
def test_loss_scaling_without_host_sync_takes_and_skips_the_same_steps(cls):
    """Compared with GradScaler's default, which waits for the device to check gradients for NaN and Inf."""

    class Waiting(cls):
        _step_supports_amp_scaling = False

    found = []
    for kind in (Waiting, cls):
        parameters = [nn.Parameter(w.float()) for w in weights()]
        groups = [{"params": parameters[:3], "adapt": True}, {"params": parameters[3:], "adapt": False}]
        optimizer, scaler = kind(groups, 0.05, weight_decay=0.02), torch.amp.GradScaler("cpu", init_scale=2.0**10)
        items = []
        for step in range(6):
            optimizer.zero_grad()
            loss = sum((p * g.float()).sum() for p, g in zip(parameters, gradients(step), strict=True))
            scaler.scale(loss).backward()
            if step in OVERFLOWS:
                parameters[1].grad[0, 0, 0, 0] = float("inf")
                parameters[2].grad[0, 0] = float("nan")
            with pytest.MonkeyPatch.context() as patch:
                item = torch.Tensor.item
                patch.setattr(torch.Tensor, "item", lambda self: (items.append(step), item(self))[1])  # noqa: B023
                scaler.step(optimizer)
            scaler.update()
            if step == 0:
                assert all(torch.equal(p, w.float()) for p, w in zip(parameters, weights(), strict=True))
        assert bool(items) == (kind is Waiting) and scaler.get_scale() == 2.0**8
        state = optimizer.state_dict()
        found.append([*(p.detach() for p in parameters), *(t for s in state["state"].values() for t in s.values())])
        again = kind(groups, 0.05)
        again.load_state_dict(copy.deepcopy(state))
        assert [float(g.get("steps", 0)) for g in again.param_groups] == [4.0 if cls is Lamb else 0.0] * 2
    assert len(found[0]) == len(found[1]) > len(SHAPES)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=2e-5, atol=1e-6)


def test_unscaled_they_are_sgd_and_adamw_of_torch():
    plain = {"adapt": False}
    lars = trained(lambda p: Lars([{"params": p, **plain}], 0.1, momentum=0.9, weight_decay=0.03))
    assert_close(lars, trained(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.03)))
    lamb = trained(lambda p: Lamb([{"params": p, **plain}], 0.1, eps=1e-8, weight_decay=0.03))
    adamw = trained(lambda p: torch.optim.AdamW(p, 0.1, eps=1e-8, weight_decay=0.03))
    assert_close(lamb, adamw)


@pytest.mark.parametrize("name", ["lars", "lamb", "sgd", "adamw"])
def test_a_step_after_saving_and_loading_is_the_same_step(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    config = Optim(name=name, weight_decay=0.1)

    def step(model, optimizer):
        set_learning_rate(optimizer, 0.1, 0.1)
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 15).view(3, 5)).square().sum().backward()
        optimizer.step()

    optimizer = make_optimizer(model, config)
    step(model, optimizer)
    again = copy.deepcopy(model)
    resumed = make_optimizer(again, config)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(again, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_in_another_memory_format_gives_the_same_steps(name):
    """A channels-last weight whose optimizer state was saved in contiguous format."""
    layouts = (torch.contiguous_format, torch.channels_last)
    plain, last = (nn.Conv2d(4, 6, 3, bias=False).to(memory_format=layout) for layout in layouts)
    optimizers = [make_optimizer(model, Optim(name=name, weight_decay=0.1)) for model in (plain, last)]

    def step(model, optimizer, gradient):
        set_learning_rate(optimizer, 0.1, 0.1)
        model.weight.grad = torch.empty_like(model.weight).copy_(gradient)
        optimizer.step()

    first, second = torch.randn(2, 6, 4, 3, 3)
    step(plain, optimizers[0], first)
    last.load_state_dict(plain.state_dict())
    load_state(optimizers[1], copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip((plain, last), optimizers, strict=True):
        step(model, optimizer, second)
    torch.testing.assert_close(last.weight, plain.weight)


@pytest.mark.parametrize("decay_norm_bias", [True, False])
def test_norms_and_biases_are_never_scaled_and_decay_only_if_requested(decay_norm_bias):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = make_optimizer(model, Optim(name="lars", weight_decay=0.1, decay_norm_bias=decay_norm_bias))
    groups = {len(group["params"]): group for group in optimizer.param_groups}
    assert groups[1]["adapt"] and groups[1]["weight_decay"] == 0.1  # the convolution's weight
    assert not groups[3]["adapt"] and groups[3]["weight_decay"] == (0.1 if decay_norm_bias else 0.0)


def test_a_predictor_keeps_the_peak_while_the_rest_follows_the_schedule():
    from fastaugself import Backbone, Pretrain, SimSiam
    from fastaugself.runs.build import build_learner

    backbone = Backbone(name="resnet18", width=4, stem="small")
    learner = build_learner(Pretrain(backbone=backbone, method=SimSiam(dim=16, predictor_hidden=8)))
    optimizer = make_optimizer(learner, Optim(norm_bias_lr_scale=0.5), constant_lr=learner.method.constant_lr)
    set_learning_rate(optimizer, 0.01, 0.1)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in learner.named_parameters():
        peak = 0.1 if name.startswith("method.predictor.") else 0.01
        assert rates[p] == pytest.approx(peak * (0.5 if p.ndim == 1 else 1.0)), name


def test_unsupported_options_of_apex_are_refused_before_it_is_imported():
    with pytest.raises(UsageError, match="apex has no fused LARS"):
        Optim(name="lars", implementation="apex")
    for options in ({}, {"decay_norm_bias": False, "weight_decay": 0.0}):
        with pytest.raises(UsageError, match=r"pass --optim\.no-decay-norm-bias( --optim\.weight-decay 0\.0001)?, or"):
            Optim(name="lamb", implementation="apex", **options)


# --- schedules and clipping -------------------------------------------------------------------------------------------


def test_weight_decay_follows_half_a_cosine_and_spares_norms_and_biases():
    """DINO's: 0.04 to 0.4; in the middle their mean."""
    dino = Optim(name="adamw", weight_decay=0.04, weight_decay_end=0.4, decay_norm_bias=False)
    assert [weight_decay(dino, p) for p in (0, 0.5, 1)] == pytest.approx([0.04, 0.22, 0.4])
    assert weight_decay(dino, 0.25) == pytest.approx(0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert weight_decay(Optim(weight_decay=0.3), 0.7) == 0.3
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for start in (0.04, 0.0):
        optimizer = make_optimizer(model, dataclasses.replace(dino, weight_decay=start))
        load_state(optimizer, optimizer.state_dict())
        for value in (0.0, 0.1):
            set_weight_decay(optimizer, value)
            found = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
            assert found[model[0].weight] == value and found[model[1].weight] == found[model[0].bias] == 0


def test_a_state_from_before_there_were_schedules_of_weight_decay_is_loaded():
    model = nn.Linear(3, 4)
    optimizer = make_optimizer(model, Optim(weight_decay=0.1, decay_norm_bias=False))
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        del group["decays"]
    load_state(optimizer, state)
    set_weight_decay(optimizer, 0.2)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.2]


@pytest.mark.parametrize("by", ["global", "parameter"])
@pytest.mark.parametrize("most", [0.5, 1e3])
def test_clipping_is_that_of_torch(by, most):
    clipped, expected = ([nn.Parameter(w) for w in weights()] for _ in range(2))
    clipped.append(nn.Parameter(torch.ones(3, dtype=torch.float64)))  # without a gradient, as if frozen
    for parameters in (clipped, expected):
        for p, g in zip(parameters, gradients(0), strict=False):
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


def test_floors_and_clipping_that_cannot_be_are_refused():
    for options, remedy in (
        ({"lr": 0.1, "min_lr": 0.2}, "above --optim.lr 0.1, the peak; pass --optim.min-lr 0.0001"),
        ({"min_lr": 0.01, "schedule": "constant"}, "pass --optim.min-lr 0, or --optim.schedule cosine"),
        ({"min_lr": -1.0}, "--optim.min-lr must be at least 0"),
        ({"weight_decay_end": math.nan}, "--optim.weight-decay-end must be at least 0"),
        ({"clip_grad": 3.0, "implementation": "apex"}, "pass --optim.implementation torch, or --optim.clip-grad 0"),
        ({"clip_grad": -3.0}, "--optim.clip-grad must be at least 0"),
        ({"lr_in_velocity": True}, "pass --optim.no-lr-in-velocity"),
    ):
        with pytest.raises(UsageError) as error:
            Optim(**options)
        assert remedy in str(error.value)


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


def test_lars_and_lamb_are_timms_where_the_formulas_agree(timm):
    """timm's LARS divides by |g| + decay |w|, which equals our |g + decay w| without decay."""
    from timm.optim import Lamb as TimmLamb
    from timm.optim import Lars as TimmLars

    lars = trained(lambda p: Lars(p, 0.3, momentum=0.9, trust_coefficient=0.01), steps=6)
    assert_close(
        lars, trained(lambda p: TimmLars(p, 0.3, momentum=0.9, trust_coeff=0.01, eps=0.0, always_adapt=True), 6)
    )
    lamb = trained(lambda p: Lamb(p, 0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.02), steps=6)
    options = {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.02, "max_grad_norm": None}
    assert_close(lamb, trained(lambda p: TimmLamb(p, 0.05, **options), 6))
