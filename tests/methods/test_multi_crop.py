"""Multi-crop: every crop is compared with each other global view, and never with a local crop, in every method."""

import copy
import itertools

import pytest
import torch
from method_cases import SMALL, build, views
from tiny_aware import config_of, learner_of, views_of

from fastaugself import CASSLE, BarlowTwins, ConditionalPredictor, SimSiam, ViewPolicy
from fastaugself.errors import UsageError
from fastaugself.methods import METHODS

TAKES = [name for name, options in METHODS.items() if options.multi_crop]
LOCAL = 3


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def anchors(z, B, temperature):
    """NT-Xent with multi-crop, anchor by anchor: (positive, candidates) for every pair of a view and another crop."""
    losses = []
    for a, b in itertools.product((0, 1), range(len(z))):
        if a == b:
            continue
        for i in range(B):
            # Both views of the other images; of the same image the positive only.
            others = [z[v][j] for v in (0, 1) for j in range(B) if j != i]
            logits = torch.stack([z[b][i] @ z[a][i], *(z[b][i] @ other for other in others)]) / temperature
            losses.append(logits.logsumexp(0) - logits[0])
    return sum(losses) / len(losses)


def info(q, k, temperature):
    return -(unit(q) @ unit(k).T / temperature).log_softmax(1).diagonal().mean()


def expected(name, m, batch):
    """The loss from the formulas of the papers, pair by pair."""
    f = [m.backbone(x) for x in (*batch.x_VBCHW, *batch.local_LBCHW)]
    z = [m.projector(x) for x in f]
    B, every = len(f[0]), [(a, b) for a, b in itertools.product((0, 1), range(len(f))) if a != b]
    if name == "moco":
        k = unit(m.key_projector(m.key_backbone(batch.x_VBCHW[1])))
        losses = []
        for v in (0, *range(2, len(z))):
            q = unit(z[v])
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ m.queue_KE.T], 1) / 0.2
            losses.append(-logits.log_softmax(1)[:, 0].mean())
        return sum(losses) / len(losses)
    if name == "simclr":
        return anchors([unit(x) for x in z], B, 0.2)
    if name == "barlow":
        terms = []
        for a, b in every:
            c = z[a].T @ z[b] / B
            eye = torch.eye(len(c), dtype=c.dtype)
            terms.append(((c - eye).square() * (eye + 0.0051 * (1 - eye))).sum())
        return sum(terms) / len(terms)
    if name in ("simsiam", "byol", "mocov3", "nnclr"):
        p = [m.predictor(x) for x in z]
    if name == "simsiam":
        terms = [-(unit(p[b]) * unit(z[a])).sum(1).mean() for a, b in every]
    elif name == "byol":
        t = [m.target_projector(m.target_backbone(x)) for x in batch.x_VBCHW]
        terms = [2 * (unit(p[b]) - unit(t[a])).square().sum(1).mean() for a, b in every]
    elif name == "mocov3":
        k = [m.key_projector(m.key_backbone(x)) for x in batch.x_VBCHW]
        terms = [2 * 0.4 * info(p[b], k[a], 0.2) for a, b in every]
    elif name == "nnclr":
        n = [m.queue_KE[(unit(x) @ m.queue_KE.T).argmax(1)] for x in z[:2]]
        terms = [info(n[a], p[b], 0.1) for a, b in every]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("name", ["moco", "mocov3", "simsiam", "simclr", "byol", "barlow", "nnclr"])
def test_the_loss_is_the_mean_over_all_pairs_of_a_global_view_and_another_crop(name):
    method, batch = build(name), views(7, local_crops=LOCAL)
    twin = copy.deepcopy(method).double()
    found = method(batch).loss
    exact = batch._replace(x_VBCHW=batch.x_VBCHW.double(), local_LBCHW=batch.local_LBCHW.double())
    with torch.no_grad():
        wanted = expected(name, twin, exact)
    torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-3, atol=1e-4)
    assert not torch.isclose(found, build(name)(views(7)).loss)  # the local crops count


def test_all_methods_but_supervised_take_local_crops():
    assert set(METHODS) - set(TAKES) == {"supervised"}


@pytest.mark.parametrize("name", TAKES)
def test_the_order_of_local_crops_does_not_matter_and_each_one_trains_the_encoder(name):
    batch = views(6, local_crops=LOCAL)
    local = batch.local_LBCHW.clone().requires_grad_()
    method = build(name)
    output = method(batch._replace(local_LBCHW=local))
    output.loss.backward()
    assert all(float(crop.abs().sum()) > 0 for crop in local.grad.flatten(1))
    again = build(name)(batch._replace(local_LBCHW=batch.local_LBCHW.flip(0)))
    torch.testing.assert_close(again.loss, output.loss, rtol=1e-4, atol=1e-5)
    assert all(f.shape == (6, 64) for f in output.features)
    frozen = [n for n, p in method.named_parameters() if not p.requires_grad]
    assert all(n.startswith(("key_", "target_", "teacher_")) for n in frozen)


@pytest.mark.parametrize("name", TAKES)
def test_the_projector_reads_the_condition_of_each_local_crop(name):
    cassle = CASSLE(conditioning="concat", depth=2, width=8)
    condition = torch.randn(2 + LOCAL, 6, 13, generator=torch.Generator().manual_seed(1))
    seen, method = [], build(name, cassle)
    method.projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    method(views(condition=condition, local_crops=LOCAL))
    used = [v for v in range(2 + LOCAL) if any(torch.equal(condition[v], x) for x in seen)]
    assert used == [0, *range(2, 2 + LOCAL)] if name == "moco" else used == list(range(2 + LOCAL))


@pytest.mark.parametrize("name", ["simsiam", "byol", "moco", "dino"])
def test_losses_of_single_samples_stay_means_over_samples(name):
    method, batch = build(name).eval(), views(8, local_crops=LOCAL)

    def part(s):
        return batch._replace(
            x_VBCHW=batch.x_VBCHW[:, s], labels_B=batch.labels_B[s], local_LBCHW=batch.local_LBCHW[:, s]
        )

    assert SMALL[name].per_sample_loss
    halves = [method(part(s)).loss for s in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(sum(halves) / 2, method(batch).loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["augself", "equimod", "care", "essl"])
def test_objectives_join_methods_with_local_crops(objective):
    config = config_of(objective, method=BarlowTwins(dim=16), num_local_crops=2, local_crop=ViewPolicy(size=12))
    learner = learner_of(config)
    output = learner(views_of(config))
    output.loss.backward()
    assert torch.isfinite(output.loss) and all(p.grad is not None for p in learner.method.parameters())


def test_conditional_predictors_take_no_local_crops():
    with pytest.raises(UsageError, match="--num-local-crops 0"):
        config_of(
            method=SimSiam(dim=16, predictor_hidden=8),
            predictor=ConditionalPredictor("concat", width=6),
            num_local_crops=2,
        )
