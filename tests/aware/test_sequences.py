"""seq-JEPA, SEN and SIE against plain formulas; their EMA encoder and their own predictors."""

import dataclasses

import pytest
import torch
from tiny_aware import (
    OBJECTIVES,
    config_of,
    cross_entropy_of_pairs,
    exact,
    inputs_of,
    learner_of,
    normalized,
    run_mlp,
    step_of,
    views_of,
)  # fmt: skip

from fastaugself import SIE, Backbone, SeqJEPA, ViewPolicy
from fastaugself.errors import UsageError
from fastaugself_kernels import descriptors


def standardised(objective, params_VBP, sizes_B2):
    policies = (objective.descriptors.policy,) * len(params_VBP)
    raw = descriptors(params_VBP, sizes_B2, policies, include=objective.descriptors.include).double()
    return (raw - objective.descriptors.mean_n) * objective.descriptors.scale_n


# --- seq-JEPA ---------------------------------------------------------------------------------------------------------


def with_context(context):
    return config_of("seqjepa", aware=(dataclasses.replace(OBJECTIVES["seqjepa"], context=context),))


@pytest.mark.parametrize(("context", "encoded"), [(2, 0), (3, 1), (5, 3)])
def test_the_sequence_has_a_target_of_its_own(context, encoded):
    config = with_context(context)
    views = views_of(config)
    assert [extra.x_VBCHW.shape[0] for extra in views.extra] == [*([encoded] if encoded else []), 1]
    rows = torch.cat([views.params_VBP, *(extra.params_VBP for extra in views.extra)])
    assert len(rows) == context + 1 and len({tuple(row) for row in rows[:, 0].tolist()}) == context + 1


def attention_layer(layer, x):
    """A post-norm transformer layer, written out. x: [B, L, W]."""
    B, L, W = x.shape
    q, k, v = (x @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, 2)
    heads = []
    for part in range(4):
        s = slice(part * W // 4, (part + 1) * W // 4)
        weights = (q[..., s] @ k[..., s].transpose(1, 2) / (W // 4) ** 0.5).softmax(2)
        heads.append(weights @ v[..., s])
    out = torch.cat(heads, 2) @ layer.self_attn.out_proj.weight.T + layer.self_attn.out_proj.bias

    def norm(y, module):
        y = (y - y.mean(2, keepdim=True)) / (y.var(2, unbiased=False, keepdim=True) + module.eps).sqrt()
        return y * module.weight + module.bias

    x = norm(x + out, layer.norm1)
    hidden = (x @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
    return norm(x + hidden @ layer.linear2.weight.T + layer.linear2.bias, layer.norm2)


@pytest.mark.parametrize("context", [2, 3])
def test_seqjepa_is_the_formula_in_float64(context):
    config = with_context(context)
    learner, views = learner_of(config), views_of(config)
    inputs = inputs_of(learner, views, "seqjepa")
    objective, features, extra = exact(learner, "seqjepa", inputs)
    output = learner.aware["seqjepa"](inputs)

    rows = [views.params_VBP, *(made.params_VBP for made in views.extra)]
    a = standardised(objective, torch.cat(rows), views.sizes_B2)
    z = [*features, *(extra[0] if context == 3 else ())]
    differences = torch.cat([a[i + 1] - a[i] for i in range(context)])
    actions = normalized(differences @ objective.action[0].weight.T).split(8)  # one batch norm for all
    tokens = [
        torch.cat([z[i], actions[i] if i < context - 1 else torch.zeros(8, 8).double()], 1) for i in range(context)
    ]
    x = torch.stack([objective.aggregate.expand(8, -1), *tokens], 1)
    for layer in objective.transformer.layers:
        x = attention_layer(layer, x)
    predicted = run_mlp(objective.predictor, torch.cat([x[:, 0], actions[-1]], 1))
    true = learner.aware["seqjepa"].target(views.extra[-1].x_VBCHW[0]).detach().double()
    cosine = torch.nn.functional.cosine_similarity
    assert output.losses["seqjepa"].item() == pytest.approx(1 - cosine(predicted, true).mean().item(), abs=1e-4)
    gain = cosine(predicted, true).mean() - cosine(z[-1], true).mean()
    assert output.metrics["seqjepa_gain"].item() == pytest.approx(gain.item(), abs=1e-4)


def test_the_target_is_an_ema_of_the_encoder_without_gradients():
    config = config_of("seqjepa")
    learner = learner_of(config)
    objective, encoder = learner.aware["seqjepa"], learner.method.backbone
    for a, b in zip(objective.target.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(a, b) and a is not b and not a.requires_grad
    before = [p.clone() for p in objective.target.parameters()]
    step_of(config, learner)(views_of(config), global_step=0, progress=0.1)
    for old, new, p in zip(before, objective.target.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(new, 0.996 * old + 0.004 * p)
        assert new.grad is None
    names = [name for name, _ in learner.named_parameters()]
    assert sum(name.endswith("conv1.weight") and "layer" not in name for name in names) == 2  # encoder and its EMA


def test_seqjepa_refuses_what_cannot_work():
    with pytest.raises(UsageError, match=r"--seqjepa\.context must be at least 2, got 1; pass --seqjepa\.context 3"):
        SeqJEPA(context=1)
    with pytest.raises(
        UsageError, match=r"tokens are 41 wide, which 4 heads do not divide; pass --seqjepa\.action-dim 12"
    ):
        learner_of(config_of("seqjepa", aware=(dataclasses.replace(OBJECTIVES["seqjepa"], action_dim=9),)))
    with pytest.raises(UsageError, match=r"--seqjepa\.include color needs colour jitter"):
        config_of("seqjepa", view=ViewPolicy(size=16, jitter=0.0))


# --- SEN and SIE ------------------------------------------------------------------------------------------------------


def test_sen_is_the_formula_in_float64():
    config = config_of("sen")
    learner, views = learner_of(config), views_of(config)
    inputs = inputs_of(learner, views, "sen")
    objective, (h1, h2), _ = exact(learner, "sen", inputs)
    a1, a2 = standardised(objective, views.params_VBP, views.sizes_B2)
    z1, z2 = (run_mlp(objective.projector, h) for h in (h1, h2))
    p2 = run_mlp(objective.predictor, torch.cat([z1, a2 - a1], 1))
    p1 = run_mlp(objective.predictor, torch.cat([z2, a1 - a2], 1))
    expected = (cross_entropy_of_pairs(p2, z2, 0.2) + cross_entropy_of_pairs(p1, z1, 0.2)) / 2
    assert learner.aware["sen"](inputs).losses["sen"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_sie_is_the_formula_in_float64():
    config = config_of("sie")
    learner, views = learner_of(config), views_of(config)
    inputs = inputs_of(learner, views, "sie")
    objective, (h1, h2), _ = exact(learner, "sie", inputs)
    a1, a2 = standardised(objective, views.params_VBP, views.sizes_B2)
    i1, i2 = (run_mlp(objective.invariant, h[:, :16]) for h in (h1, h2))
    e1, e2 = (run_mlp(objective.equivariant, h[:, 16:]) for h in (h1, h2))
    moved = torch.stack([
        (sum((a2 - a1)[b, k] * objective.matrices_nEE[k] for k in range(13 - 2)) + objective.matrices_nEE[11]) @ e1[b]
        for b in range(8)
    ])  # fmt: skip

    def hinge(x):
        return (1 - (x.var(0) + 1e-4).sqrt()).clamp(min=0).mean()

    def covariance(x):
        c = x - x.mean(0)
        full = c.T @ c / (len(x) - 1)
        return sum(full[i, j] ** 2 for i in range(len(full)) for j in range(len(full)) if i != j) / len(full)

    pairs = [torch.cat([i1, e1], 1), torch.cat([i2, e2], 1)]
    expected = {
        "sie_invariance": (i1 - i2).square().mean(),
        "sie_equivariance": (moved - e2).square().mean(),
        "sie_variance": hinge(pairs[0]) + hinge(pairs[1]),
        "sie_prediction": hinge(moved),
        "sie_covariance": covariance(pairs[0]) + covariance(pairs[1]),
    }
    losses = learner.aware["sie"](inputs).losses
    assert objective.descriptors.width == 11 and losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-5), name
    assert list(SIE().weights.values()) == [10, 4.5, 10, 10, 1]


def test_sie_needs_an_even_number_of_features():
    from fastaugself.aware.base import AwareContext

    learner = learner_of(config_of())
    context = AwareContext(learner.method, 31, config_of().policies)
    with pytest.raises(UsageError, match=r"has 31; pass --sie\.weight 0"):
        OBJECTIVES["sie"].build(context)


@pytest.mark.parametrize("name", ["equimod", "seqjepa", "sen", "sie"])
def test_own_predictors_predict_what_training_predicts(name):
    """`embed_view` and `predict_view`, by which the equivariance of a run is measured."""
    learner = learner_of(config_of(name))
    objective, width = learner.aware[name].eval(), learner.method.backbone.num_features
    f = torch.randn(6, width)
    y = objective.embed_view(f)
    a, b = torch.randn(2, 6, objective.descriptors.width).unbind()
    predicted = objective.predict_view(y, a, b)
    assert predicted.shape == y.shape and torch.isfinite(predicted).all()
    other = objective.predict_view(y, a, b + 1)
    assert not torch.allclose(predicted, other)


def test_experiments_on_other_backbones_build():
    """Features of any width that the tokens can take."""
    config = config_of("seqjepa", "sie", backbone=Backbone(name="resnet18", width=6, stem="small"))
    assert torch.isfinite(learner_of(config)(views_of(config)).loss)
