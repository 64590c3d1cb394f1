"""LeJEPA against its formulas in float64, against lightly's loss, and its directions."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from method_cases import build, views

from fastaugself.methods.hashing import normal, permutation
from fastaugself.methods.lejepa import sigreg


def plain_sigreg(z, directions, knots, limit):
    """The statistic of one view, written with complex numbers, point by point."""
    total, N, step = 0.0, len(z), limit / (knots - 1)
    for a in directions.double():
        x = z.double() @ a
        values = []
        for k in range(knots):
            t = k * step
            empirical = sum(torch.exp(1j * t * value) for value in x) / N
            values.append(abs(empirical - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))
        total = total + 2 * N * sum((values[k] + values[k + 1]) / 2 * step for k in range(knots - 1))
    return total / len(directions)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize(("knots", "limit"), [(17, 3.0), (2, 1.0), (5, 5.0)])
def test_sigreg_is_the_integral_of_the_squared_distance_of_characteristic_functions(knots, limit):
    random = torch.Generator().manual_seed(1)
    z = torch.randn(3, 7, 5, generator=random) * torch.tensor([0.1, 1.0, 4.0])[:, None, None] + 0.5
    directions = unit(6, 5)
    expected = sum(plain_sigreg(view, directions, knots, limit) for view in z) / 3
    torch.testing.assert_close(sigreg(z, directions, knots=knots, limit=limit).double(), expected, rtol=1e-4, atol=1e-5)


def test_sigreg_is_least_for_standard_normal_embeddings():
    random = torch.Generator().manual_seed(0)
    z = torch.randn(1, 4096, 6, generator=random)
    found = [float(sigreg(x, unit(64, 6), knots=17, limit=3.0)) for x in (z, z * 0, z * 0.7, z * 1.4, z + 0.3)]
    assert all(value > 10 * found[0] for value in found[1:]), found


def test_the_loss_predicts_the_mean_of_the_global_views_from_every_crop():
    method, batch = build("lejepa"), views(7, local_crops=3)
    twin = copy.deepcopy(method)
    output = method(batch)
    z = [twin.projector(twin.backbone(x)).detach().double() for x in (*batch.x_VBCHW, *batch.local_LBCHW)]
    target = (z[0] + z[1]) / 2
    prediction = sum(((x - target) ** 2).sum() for x in z) / (5 * 7 * 16)
    directions = F.normalize(normal(8, 16, torch.tensor(0)), dim=1)
    regularization = sum(plain_sigreg(x, directions, 17, 3.0) for x in z) / 5
    torch.testing.assert_close(output.metrics["prediction"].double(), prediction, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.metrics["sigreg"].double(), regularization, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.loss.double(), 0.98 * prediction + 0.02 * regularization, rtol=1e-4, atol=1e-6)


def test_the_loss_is_float32_under_autocast():
    z, directions = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)), unit(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = sigreg(z, directions, knots=17, limit=3.0)
    assert torch.equal(rounded, sigreg(z, directions, knots=17, limit=3.0))


def test_directions_are_new_in_every_step_uniform_on_the_sphere_and_survive_a_checkpoint():
    found = torch.stack([normal(256, 6, torch.tensor(step)) for step in range(40)])
    assert len(found.flatten().unique()) > 0.9 * found.numel()
    flat = found.flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(6), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(flat.T), torch.eye(6), atol=0.05, rtol=0)
    fourth = flat.pow(4).mean(0)  # 3 for a normal distribution
    torch.testing.assert_close(fourth, torch.full((6,), 3.0), atol=0.3, rtol=0)
    between = (found[:-1] * found[1:]).mean((1, 2))  # steps are independent
    assert float(between.abs().max()) < 4 / (256 * 6) ** 0.5
    method = build("lejepa")
    losses = []
    for _ in range(2):
        losses.append(float(method(views()).metrics["sigreg"].detach()))
        method.update_queue((), 0.5)
    assert losses[0] != losses[1]
    twin = build("lejepa")
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin(views()).loss, method(views()).loss) and int(twin.step) == 2


def test_a_permutation_has_every_position_once():
    found = [permutation(50, torch.tensor(number)) for number in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in found)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("local_crops", [1, 3])
def test_value_and_gradient_are_those_of_lightly(local_crops, lightly_loss):
    random = torch.Generator().manual_seed(0)
    z = torch.randn(2 + local_crops, 9, 5, generator=random)
    ours, theirs = (z.clone().requires_grad_() for _ in range(2))
    directions = unit(12, 5)
    loss = lightly_loss.LeJEPALoss(lambda_param=0.05)
    loss.sigreg._generate_unit_vectors = lambda device, dtype, features: directions.T  # the same directions
    expected = loss(local_proj=theirs[2:], global_proj=theirs[:2])
    prediction = (ours - ours[:2].mean(0)).square().mean()
    found = 0.95 * prediction + 0.05 * sigreg(ours, directions, knots=17, limit=3.0)
    torch.testing.assert_close(found, expected)
    for total in (found, expected):
        total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
