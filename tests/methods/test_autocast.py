"""Losses are float32 under mixed precision, whatever autocast would do to a matrix product.

`.float()` before a product is not enough: autocast takes its factors back to 16 bits.
"""

import functools

import pytest
import torch
from method_cases import SMALL, build, views
from tiny_aware import OBJECTIVES, config_of, learner_of, views_of
from torch import nn

LAYERS = (nn.Linear, nn.Conv2d, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.MultiheadAttention)


def in_full_precision(module):
    """Makes every layer of a module compute in float32 under autocast, so that what stands between them is left."""
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            layer.forward = functools.partial(without_autocast, layer.forward)
    return module


def without_autocast(forward, *inputs, **options):
    with torch.autocast("cpu", enabled=False):
        return forward(*(x.float() if isinstance(x, torch.Tensor) else x for x in inputs), **options)


def loss_and_gradients(module, batch, dtype):
    module.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = module(batch).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


def check(make, batch, dtype):
    (loss, gradients), (expected, exact) = (
        loss_and_gradients(in_full_precision(make()), batch, kind) for kind in (dtype, torch.float32)
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == exact.keys() and exact
    for name, gradient in exact.items():
        difference = (gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert difference < 1e-3, f"the gradient of {name} differs by {difference:.1e}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SMALL)
def test_the_loss_of_a_method(name, dtype):
    check(lambda: build(name), views(), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - {"augself", "ser"}))  # whose layers are no modules
def test_the_loss_of_an_objective(name, dtype):
    config = config_of(name)

    def make():
        torch.manual_seed(0)
        return learner_of(config)

    check(make, views_of(config), dtype)


def test_a_product_under_autocast_would_be_found(monkeypatch):
    """The check finds what it is for: Barlow Twins' correlation, computed under autocast."""
    from fastaugself.methods import barlow

    def rounded(z1_BE, z2_BE, weight):
        correlation_EE = (z1_BE.T @ z2_BE).float() / len(z1_BE)
        diagonal = torch.diagonal(correlation_EE)
        return (diagonal - 1).square().sum() + weight * (correlation_EE.square().sum() - diagonal.square().sum())

    monkeypatch.setattr(barlow, "redundancy_loss", rounded)
    with pytest.raises(AssertionError):
        check(lambda: build("barlow"), views(), torch.bfloat16)
