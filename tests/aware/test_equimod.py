"""EquiMod and its STAR options against the formulas, and conditional predictors."""

import dataclasses

import pytest
import tiny_runs
import torch
from syncs import counted_syncs
from tiny_aware import (
    OBJECTIVES,
    OFF,
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

from fastaugself import (
    BYOL,
    CASSLE,
    NNCLR,
    AugSelf,
    ConditionalPredictor,
    EquiMod,
    MoCo,
    MoCoV3,
    SimCLR,
    SimSiam,
    Supervised,
)
from fastaugself.aware.base import ViewRequest
from fastaugself.errors import UsageError
from fastaugself_kernels import ViewPolicy, descriptors


def with_options(**options):
    return config_of("equimod", aware=(dataclasses.replace(OBJECTIVES["equimod"], **options),))


def test_the_plain_view_is_the_central_crop():
    config = config_of("equimod")
    assert config.requests["equimod"] == (ViewRequest(ViewPolicy.none(16)),)
    rows = views_of(config).extra[0].params_VBP[0]
    side = torch.minimum(rows[:, 2], rows[:, 3])
    assert torch.equal(rows[:, 2], side) and torch.equal(rows[:, 3], side) and rows[:, [4, 6, 12, 13]].abs().max() == 0


@pytest.mark.parametrize("residual", [False, True])
def test_the_loss_is_the_formula_in_float64(residual):
    config = with_options(residual=residual)
    learner, views = learner_of(config), views_of(config)
    inputs = inputs_of(learner, views, "equimod")
    objective, features, extra = exact(learner, "equimod", inputs)
    output = learner.aware["equimod"](inputs)

    y0, y1, y2 = (run_mlp(objective.head, h) for h in (extra[0][0], *features))
    include = ("blur", "color", "crop", "flip", "grayscale", "jitter", "order")
    raw = descriptors(views.params_VBP, views.sizes_B2, config.policies, include=include).double()
    a1, a2 = (raw - objective.descriptors.mean_n) * objective.descriptors.scale_n
    predicted = []
    for a in (a1, a2):
        q = normalized(a @ objective.condition[0].weight.T, objective.condition[1])
        moved = run_mlp(objective.module, torch.cat([y0, q], 1))
        predicted.append(y0 + moved if residual else moved)
    true, predicted = torch.cat([y1, y2]), torch.cat(predicted)
    expected = cross_entropy_of_pairs(true, predicted, 0.2)
    assert output.losses["equimod"].item() == pytest.approx(expected.item(), rel=1e-4)

    cosine = torch.nn.functional.cosine_similarity
    gain = cosine(true, predicted).mean() - cosine(true, torch.cat([y0, y0])).mean()
    assert output.metrics["equimod_gain"].item() == pytest.approx(gain.item(), abs=1e-4)
    assert not output.metrics["equimod_gain"].requires_grad


def test_gradients_reach_all_three_views():
    """No gradient is stopped."""
    config = config_of("equimod")
    learner = learner_of(config)
    inputs = inputs_of(learner, views_of(config), "equimod")
    learner.aware["equimod"](inputs).losses["equimod"].backward()
    for features in (*inputs.features, inputs.extra[0].features_VBD):
        assert features.grad.abs().sum(-1).min() > 0


def test_experts_are_shared_and_each_loss_has_its_router():
    config = with_options(experts=3)
    learner = learner_of(config)
    projector, objective = learner.method.projector, learner.aware["equimod"]
    assert len(projector.experts) == 3 and not hasattr(objective, "head")
    f = torch.randn(8, learner.method.backbone.num_features)
    projector.eval()
    every = torch.stack([expert(f) for expert in projector.experts], 1)
    for router, mixed in ((projector.invariant, projector(f)), (projector.equivariant, projector.embed(f))):
        shares = router(f).softmax(1)
        torch.testing.assert_close(mixed, sum(shares[:, k, None] * every[:, k] for k in range(3)))
    projector.train()
    output = learner(views_of(config))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in projector.parameters())


@pytest.mark.parametrize("method", [MoCo(queue=32, dim=8), BYOL(dim=8, hidden=16, predictor_hidden=16)])
def test_experts_join_methods_with_a_momentum_projector(method):
    config = with_options(experts=2)
    config = dataclasses.replace(config, method=method)
    output = learner_of(config)(views_of(config))
    output.loss.backward()
    assert torch.isfinite(output.loss)


def test_what_cannot_work_is_refused():
    with pytest.raises(UsageError, match=r"--equimod\.experts 0, or --cassle\.conditioning none"):
        dataclasses.replace(with_options(experts=2), cassle=CASSLE(conditioning="concat"))
    with pytest.raises(UsageError, match=r"needs the projector.*Supervised.*--equimod\.weight 0"):
        dataclasses.replace(with_options(experts=2), method=Supervised())
    with pytest.raises(UsageError, match=r"--equimod\.include blur needs blurred views.*--equimod\.weight 0"):
        dataclasses.replace(config_of("equimod"), view=ViewPolicy(size=16, blur=0.0))
    with pytest.raises(UsageError, match=r"--equimod\.experts must be 0 or at least 2, got 1"):
        with_options(experts=1)


# --- predictors that read the difference of the parameters ------------------------------------------------------------

PREDICTED = {
    "simsiam": SimSiam(dim=16, predictor_hidden=8),
    "byol": BYOL(dim=8, hidden=16, predictor_hidden=16),
    "nnclr": NNCLR(queue=32, dim=8, hidden=16, predictor_hidden=16),
    "mocov3": MoCoV3(dim=8, hidden=16),
}


@pytest.mark.parametrize("name", PREDICTED)
def test_a_conditional_predictor_reads_the_difference_to_the_other_view(name):
    config = config_of(method=PREDICTED[name], predictor=ConditionalPredictor("concat", width=6))
    learner, views = learner_of(config), views_of(config)
    predictor = learner.method.predictor
    z = torch.randn(8, predictor.layers[0].in_features - 6)
    a = predictor.descriptors(views.params_VBP, views.sizes_B2)
    for view, difference in ((0, a[1] - a[0]), (1, a[0] - a[1])):
        action = normalized(difference @ predictor.action[0].weight.T)
        expected = run_mlp(predictor.layers, torch.cat([z, action], 1))
        found = predictor(z, views.params_VBP, views.sizes_B2, view)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    output = learner(views)
    output.loss.backward()
    assert predictor.action[0].weight.grad.abs().sum() > 0


def test_a_plain_predictor_ignores_the_parameters():
    config = config_of(method=PREDICTED["byol"])
    predictor, views = learner_of(config).method.predictor, views_of(config)
    z = torch.randn(8, 8)
    torch.testing.assert_close(predictor(z), predictor(z, views.params_VBP, views.sizes_B2, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": SimCLR()}, r"concat: SimCLR has no predictor; pass --predictor\.conditioning none"),
        ({"augself": AugSelf(only=True)}, "without a base loss there is none; pass --predictor.conditioning none"),
        ({"view": ViewPolicy(size=16, blur=0.0)}, r"blur: all views.*--predictor\.include color crop flip grayscale"),
    ],
)
def test_a_conditional_predictor_that_cannot_work_is_refused(changes, message):
    options = {"method": PREDICTED["byol"], "augself": OFF, "predictor": ConditionalPredictor("concat")}
    with pytest.raises(UsageError, match=message):
        config_of(**{**options, **changes})


# --- both change a part of the base method, which must still compile, resume and not wait for the device ----------

CHANGED = {
    "experts": {"aware": (EquiMod(hidden=16, condition_dim=6, residual=True, experts=2),), "method": SimCLR(dim=8)},
    "predictor": {"predictor": ConditionalPredictor("concat", width=6), "method": PREDICTED["byol"]},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_base_method_compiles_in_one_graph(name):
    config = config_of(**{"augself": OFF, **CHANGED[name]})
    learner, views = learner_of(config), views_of(config)
    expected = learner(views).loss
    torch._dynamo.reset()
    compiled = torch.compile(learner_of(config), backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(views).loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_base_method_has_no_host_sync(name, monkeypatch):
    config = config_of(**{"augself": OFF, **CHANGED[name]})
    step, views = step_of(config), views_of(config)
    for i in range(2):
        step(views, global_step=i, progress=0.1)
    with counted_syncs(monkeypatch) as found:
        step(views, global_step=2, progress=0.2)
    assert found == []


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_base_method_resumes_with_the_same_bits(name, beton, tmp_path):
    options = {"augself": OFF, **CHANGED[name]}
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "whole", max_steps=4, **options))
    for steps in (2, 4):
        tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=steps, **options))
    whole, parts = (tiny_runs.saved_weights(tmp_path / run) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any("descriptors.mean_n" in key for key in whole)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items() if isinstance(value, torch.Tensor))
