"""VICReg against its formulas in float64, and against lightly's loss."""

import copy
import itertools

import pytest
import torch
from method_cases import build, views

from fastaugself.methods.vicreg import vicreg_terms


def plain_terms(views_BE):
    """Equations 1 to 6 sample by sample and dimension by dimension, with the original code's factors."""
    z = [x.double() for x in views_BE]
    B, E = z[0].shape
    pairs = [(a, b) for a, b in itertools.product((0, 1), range(len(z))) if a != b]
    invariance = sum(((z[a][i] - z[b][i]) ** 2).sum() / E for a, b in pairs for i in range(B)) / (B * len(pairs))
    variance = covariance = 0.0
    for x in z:
        mean = sum(x[i] for i in range(B)) / B
        C = sum(torch.outer(x[i] - mean, x[i] - mean) for i in range(B)) / (B - 1)
        variance += sum(max(0.0, 1 - float(C[j, j] + 1e-4) ** 0.5) for j in range(E)) / E
        covariance += sum(float(C[j, k]) ** 2 for j, k in itertools.product(range(E), repeat=2) if j != k) / E
    return float(invariance), variance / len(z), 2 * covariance / len(z)


@pytest.mark.parametrize("crops", [2, 5])
@pytest.mark.parametrize(("B", "E"), [(7, 5), (5, 9)])  # the covariances of samples or of dimensions
def test_the_terms_are_equations_1_to_6(B, E, crops):
    random = torch.Generator().manual_seed(0)
    # Standard deviations on both sides of the hinge, and means far from zero.
    z = [torch.randn(B, E, generator=random) * torch.linspace(0.1, 3, E) + 3 for _ in range(crops)]
    found = [float(term) for term in vicreg_terms(z)]
    assert found == pytest.approx(plain_terms(z), rel=1e-4)
    assert all(term > 0.01 for term in found)


def test_the_loss_weighs_its_terms_and_uses_every_crop():
    method, batch = build("vicreg"), views(7, local_crops=3)
    twin = copy.deepcopy(method)
    output = method(batch)
    z = [twin.projector(twin.backbone(x)) for x in (*batch.x_VBCHW, *batch.local_LBCHW)]
    terms = plain_terms([x.detach() for x in z])
    assert float(output.loss.detach()) == pytest.approx(25 * terms[0] + 25 * terms[1] + terms[2], rel=1e-4)
    assert [float(output.metrics[name].detach()) for name in ("invariance", "variance", "covariance")] == pytest.approx(
        terms, rel=1e-4
    )


def test_the_loss_is_float32_under_autocast():
    random = torch.Generator().manual_seed(0)
    z = [torch.randn(6, 9, generator=random) for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = vicreg_terms(z)
    assert all(torch.equal(a, b) for a, b in zip(rounded, vicreg_terms(z), strict=True))


@pytest.mark.parametrize(("B", "E"), [(12, 6), (6, 12)])
def test_value_and_gradient_are_those_of_lightly(B, E, lightly_loss):
    random = torch.Generator().manual_seed(0)
    ours, theirs = ([x.clone().requires_grad_() for x in torch.randn(2, B, E, generator=random)] for _ in range(2))
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    invariance, variance, covariance = vicreg_terms(ours)
    loss = 25 * invariance + 25 * variance + covariance
    expected = lightly_loss.VICRegLoss(lambda_param=25, mu_param=25, nu_param=1)(*theirs)
    torch.testing.assert_close(loss, expected)
    for total in (loss, expected):
        total.backward()
    torch.testing.assert_close([x.grad for x in ours], [x.grad for x in theirs])
