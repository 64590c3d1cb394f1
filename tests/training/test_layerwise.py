"""LARS and LAMB against plain formulas, torch and timm, and their steps with loss scaling."""

import copy

import pytest
import torch
from torch import nn

from fastaugself.config.optim import Optim
from fastaugself.errors import UsageError
from fastaugself.training.lamb import Lamb
from fastaugself.training.lars import Lars
from fastaugself.training.optim import (
    make_optimizer,
    set_learning_rate,
)

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
