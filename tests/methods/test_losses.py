"""Losses, gradients and EMA updates of all methods against formulas written from the papers."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from method_cases import SMALL, build, views

from fastaugself.aware.cassle import CASSLE, PUBLISHED, ConditionedProjector
from fastaugself.errors import UsageError
from fastaugself.methods import (
    BYOL,
    DINO,
    METHODS,
    NNCLR,
    BarlowTwins,
    LeJEPA,
    MoCo,
    MoCoV3,
    SimCLR,
    SimSiam,
    SwAV,
    VICReg,
)
from fastaugself.methods.barlow import redundancy_loss
from fastaugself.methods.base import BuildContext
from fastaugself.methods.hashing import normal
from fastaugself.methods.simclr import nt_xent
from fastaugself.methods.swav import sinkhorn
from fastaugself.models.build import Backbone, build_backbone
from fastaugself.models.ema import cosine_momentum


def cosine(a, b):
    return (a.double() * b.double()).sum(1) / (a.double().norm(dim=1) * b.double().norm(dim=1))


def test_all_methods_are_covered():
    assert SMALL.keys() == METHODS.keys()
    assert all(type(SMALL[name]) is METHODS[name] for name in METHODS)


def test_simsiam_is_equation_1():
    method, batch = build("simsiam"), views()
    loss = method(batch).loss
    twin = copy.deepcopy(method)
    z = [twin.projector(twin.backbone(x)) for x in batch.x_VBCHW]
    p = [twin.predictor(a) for a in z]
    expected = -0.5 * (cosine(p[0], z[1]) + cosine(p[1], z[0])).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_simsiam_stops_the_gradient_at_the_target():
    method, batch = build("simsiam"), views()
    targets = []
    hook = method.projector.register_forward_hook(lambda m, i, o: targets.append(o) or o)
    method(batch).loss.backward()
    hook.remove()
    # Without gradients through the predictor the encoder must have none: all of its gradient comes through predictions.
    cut = copy.deepcopy(method)
    cut.zero_grad()
    cut.predictor.register_forward_hook(lambda module, inputs, output: output.detach())
    loss = cut(batch).loss
    assert not loss.requires_grad or all(p.grad is None for p in cut.backbone.parameters())


def test_byol_is_equation_2_and_its_target_is_an_ema():
    method, batch = build("byol"), views()
    twin = copy.deepcopy(method)
    loss = method(batch).loss
    p = [twin.predictor(twin.projector(twin.backbone(x))) for x in batch.x_VBCHW]
    t = [twin.target_projector(twin.target_backbone(x)) for x in batch.x_VBCHW]
    unit = [[F.normalize(v.double(), dim=1) for v in side] for side in (p, t)]
    expected = sum((unit[0][i] - unit[1][1 - i]).square().sum(1).mean() for i in (0, 1))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    loss.backward()
    assert all(param.grad is None for param in method.target_backbone.parameters())
    with torch.no_grad():
        for param in method.projector.parameters():
            param.add_(1.0)
    before = copy.deepcopy(list(method.target_projector.parameters()))
    method.after_optimizer_step()
    method.update_ema(0.25)
    method.update_queue((), 0.25)
    m = 1 - 0.004 * (math.cos(math.pi * 0.25) + 1) / 2
    online = method.projector.parameters()
    for target, was, parameter in zip(method.target_projector.parameters(), before, online, strict=True):
        torch.testing.assert_close(target, m * was + (1 - m) * parameter)


def test_the_momentum_schedule_goes_from_its_start_to_one():
    assert cosine_momentum(0.99, 0.0) == pytest.approx(0.99) and cosine_momentum(0.99, 1.0) == 1.0


def plain_nt_xent(z1, z2, temperature):
    """Equation 1 of SimCLR, pair by pair."""
    z = torch.cat([z1, z2]).double()
    n, losses = len(z1), []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        similarity = [torch.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        losses.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / sum(similarity)))
    return sum(losses) / (2 * n)


def test_simclr_is_equation_1():
    method, batch = build("simclr"), views()
    loss = method(batch).loss
    twin = copy.deepcopy(method)
    z = [F.normalize(twin.projector(twin.backbone(x)), dim=1) for x in batch.x_VBCHW]
    assert loss.item() == pytest.approx(plain_nt_xent(*z, 0.2).item(), abs=1e-5)


def test_barlow_is_equation_1():
    method, batch = build("barlow"), views(8)
    loss = method(batch).loss
    twin = copy.deepcopy(method)
    z = [twin.projector(twin.backbone(x)).double() for x in batch.x_VBCHW]
    # A no-op up to eps, because the projector ends in a batch norm.
    z = [(a - a.mean(0)) / a.var(0, unbiased=False).add(1e-5).sqrt() for a in z]
    c = z[0].T @ z[1] / 8
    expected = sum(
        (1 - c[i, i]) ** 2 if i == j else 0.0051 * c[i, j] ** 2 for i, j in itertools.product(range(32), repeat=2)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    exact = redundancy_loss(z[0].float(), z[1].float(), 0.0051)
    assert exact.item() == pytest.approx(expected.item(), rel=1e-4)


def test_mocov3_is_algorithm_1():
    method, batch = build("mocov3"), views()
    loss = method(batch).loss
    twin = copy.deepcopy(method)
    q = [F.normalize(twin.predictor(twin.projector(twin.backbone(x))).double(), dim=1) for x in batch.x_VBCHW]
    k = [F.normalize(twin.key_projector(twin.key_backbone(x)).double(), dim=1) for x in batch.x_VBCHW]
    labels = torch.arange(6)
    expected = sum(F.cross_entropy(q[i] @ k[1 - i].T / 0.2, labels) * 2 * 0.2 for i in (0, 1))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_supervised_is_cross_entropy_on_both_views():
    method, batch = build("supervised"), views()
    loss = method(batch).loss
    twin = copy.deepcopy(method)
    logits = [twin.classifier(twin.backbone(x)).double() for x in batch.x_VBCHW]
    expected = sum(-a.log_softmax(1)[torch.arange(6), batch.labels_B].mean() for a in logits) / 2
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def plain_sinkhorn(scores, epsilon, iterations):
    """Algorithm 1 of the SwAV paper, in float64."""
    Q = torch.exp(scores.double() / epsilon).T
    K, B = Q.shape
    Q /= Q.sum()
    for _ in range(iterations):
        Q = Q / Q.sum(1, keepdim=True) / K
        Q = Q / Q.sum(0, keepdim=True) / B
    return (Q * B).T


def test_swav_swaps_balanced_assignments_over_all_crops():
    method, batch = build("swav"), views(local_crops=3)
    loss = method(batch).loss
    twin = copy.deepcopy(method)
    features = [twin.backbone(x) for x in batch.x_VBCHW] + [twin.backbone(x) for x in batch.local_LBCHW]
    z = [F.normalize(twin.projector(f), dim=1) for f in features]
    weights = F.normalize(method.prototypes.weight, dim=1)
    scores = [a.double() @ weights.double().T for a in z]
    terms = []
    for s in (0, 1):
        q = plain_sinkhorn(scores[s], 0.05, 3)
        terms += [-(q * (scores[v] / 0.1).log_softmax(1)).sum(1).mean() for v in range(5) if v != s]
    assert loss.item() == pytest.approx((sum(terms) / len(terms)).item(), abs=1e-4)


def test_sinkhorn_uses_all_prototypes_equally():
    scores = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    Q = sinkhorn(scores, 0.5, 50)
    torch.testing.assert_close(Q.sum(1), torch.ones(64))
    torch.testing.assert_close(Q.sum(0), torch.full((8,), 8.0), atol=0.05, rtol=0)
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3), plain_sinkhorn(scores, 0.05, 3).float(), atol=1e-5, rtol=1e-4)


def test_swav_sums_both_swapped_losses_in_augselfs_form():
    options = {"dim": 16, "hidden": 32, "prototypes": 12}
    mean, total = (build("swav", **options, reduction=how)(views(local_crops=2)).loss for how in ("mean", "sum"))
    torch.testing.assert_close(total, 2 * mean)


def test_swav_freezes_prototypes_then_normalises_them_and_fills_its_queue():
    method = build("swav", dim=16, hidden=32, prototypes=12, freeze_steps=1, queue=10, queue_start=0.5)
    for step, filled in ((0, 0), (1, 6), (2, 10)):
        output = method(views(seed=step))
        output.loss.backward()
        method.after_backward(step)
        assert (method.prototypes.weight.grad is None) == (step == 0)
        with torch.no_grad():
            method.prototypes.weight.mul_(3)
        method.after_optimizer_step()
        method.update_ema(step / 2)
        method.update_queue(output.queue_update, step / 2)
        assert method.filled == filled
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))
        method.zero_grad()
    twin = build("swav", dim=16, hidden=32, prototypes=12, freeze_steps=1, queue=10, queue_start=0.5)
    twin.load_state_dict(method.state_dict())
    assert twin.filled == 10 and torch.equal(twin.queue_2LE, method.queue_2LE)


# Input and output widths of the projector's layers for features of width 64, from the papers.
@pytest.mark.parametrize(
    ("config", "widths"),
    [
        (MoCo(), [(64, 64), (64, 128)]),
        (SimSiam(), [(64, 2048), (2048, 2048), (2048, 2048)]),
        (SimSiam(layers=2), [(64, 2048), (2048, 2048)]),
        (SimCLR(), [(64, 64), (64, 128)]),
        (BYOL(), [(64, 4096), (4096, 256)]),
        (SwAV(), [(64, 2048), (2048, 128)]),
        (BarlowTwins(), [(64, 8192), (8192, 8192), (8192, 8192)]),
        (NNCLR(), [(64, 2048), (2048, 2048), (2048, 256)]),
        (LeJEPA(), [(64, 2048), (2048, 2048), (2048, 64)]),
        (DINO(), [(64, 2048), (2048, 2048), (2048, 256)]),
        (VICReg(), [(64, 8192), (8192, 8192), (8192, 8192)]),
        (MoCoV3(projector_layers=3), [(64, 4096), (4096, 4096), (4096, 256)]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_projectors_have_the_published_shapes(config, widths):
    with torch.device("meta"):
        backbone, width = build_backbone(Backbone(name="resnet18", width=8))
        method = config.build(BuildContext(backbone, width))
    linear = [m for m in method.projector.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == widths


CONDITIONED = ["moco", "mocov3", "simsiam", "simclr", "byol", "swav", "barlow", "vicreg", "nnclr", "lejepa", "dino"]


@pytest.mark.parametrize("name", CONDITIONED)
@pytest.mark.parametrize("conditioning", ["concat", "add", "multiply", "hypernetwork", "hypernetwork-published"])
def test_a_conditioned_projector_uses_its_own_views_condition(name, conditioning):
    cassle = CASSLE(conditioning=conditioning, depth=2, width=8)
    method = build(name, cassle)
    condition = torch.randn(2, 6, 13, generator=torch.Generator().manual_seed(1))
    output = method(views(condition=condition))
    output.loss.backward()
    grads = [p.grad for p in method.projector.condition_encoder.parameters()]
    assert grads and all(g is not None and torch.isfinite(g).all() for g in grads)
    other = condition.clone()
    other[0] = condition[0].flip(0)
    assert copy.deepcopy(method)(views(condition=other)).loss.item() != output.loss.item()


def test_the_condition_encoder_has_the_published_shape():
    projector = ConditionedProjector(CASSLE(conditioning="concat"), [512, 512, 128], hidden_norm=True)
    linear = [m for m in projector.condition_encoder if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(13, 64)] + [(64, 64)] * 5
    assert isinstance(projector.condition_encoder[-1], torch.nn.BatchNorm1d) and all(m.bias is None for m in linear)
    assert projector.hidden[0].in_features == 512 + 64
    assert CASSLE(conditioning="concat").condition_dim == 13
    assert CASSLE(conditioning="concat", include=(*PUBLISHED, "flip")).condition_dim == 14


def test_momentum_networks_have_their_own_condition_encoder():
    method = build("moco", CASSLE(conditioning="concat", depth=2, width=8))
    own = dict(method.key_projector.named_parameters())
    assert any(name.startswith("condition_encoder.") for name in own) and not any(p.requires_grad for p in own.values())


@pytest.mark.parametrize(
    "options", [{"include": ("colour",)}, {"include": ()}, {"conditioning": "add", "condition_encoder": "raw"}]
)
def test_conditions_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match="--cassle"):
        CASSLE(**options)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_trains_its_backbone_and_resumes_from_its_checkpoint(name):
    method = build(name)
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    before = copy.deepcopy(method.backbone.state_dict())
    for step in range(3):
        output = method(views(seed=step))
        optimizer.zero_grad()
        output.loss.backward()
        method.after_backward(step)
        optimizer.step()
        method.after_optimizer_step()
        method.update_ema(step / 3)
        method.update_queue(output.queue_update, step / 3)
        assert all(not x.requires_grad for x in output.queue_update)
    assert any(not torch.equal(before[k], v) for k, v in method.backbone.state_dict().items())
    twin = build(name)
    twin.load_state_dict(method.state_dict())
    a, b = method(views(seed=9)).loss, twin(views(seed=9)).loss
    assert a.item() == b.item()


def expected_loss(name, m, batch):
    """The loss of the paper with explicit stop-gradients, computed with the modules of `m`."""
    x = batch.x_VBCHW
    f = [m.backbone(view) for view in x]
    if name == "supervised":
        return sum(F.cross_entropy(m.classifier(a), batch.labels_B) for a in f) / 2
    z = [m.projector(a) for a in f]
    if name == "moco":
        with torch.no_grad():
            k = F.normalize(m.key_projector(m.key_backbone(x[1])), dim=1)
        q = F.normalize(z[0], dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ m.queue_KE.T], 1) / 0.2
        return -logits.log_softmax(1)[:, 0].mean()
    if name == "mocov3":
        with torch.no_grad():
            k = [F.normalize(m.key_projector(m.key_backbone(view)), dim=1) for view in x]
        q = [F.normalize(m.predictor(a), dim=1) for a in z]
        return sum(-0.4 * (q[i] @ k[1 - i].T / 0.2).log_softmax(1).diagonal().mean() for i in (0, 1))
    if name == "simsiam":
        p = [F.normalize(m.predictor(a), dim=1) for a in z]
        t = [F.normalize(a.detach(), dim=1) for a in z]
        return -0.5 * sum((p[i] * t[1 - i]).sum(1).mean() for i in (0, 1))
    if name == "byol":
        with torch.no_grad():
            t = [F.normalize(m.target_projector(m.target_backbone(view)), dim=1) for view in x]
        p = [F.normalize(m.predictor(a), dim=1) for a in z]
        return sum((p[i] - t[1 - i]).square().sum(1).mean() for i in (0, 1))
    if name == "simclr":
        return plain_nt_xent(*(F.normalize(a, dim=1) for a in z), 0.2)
    if name == "barlow":
        c = z[0].T @ z[1] / len(z[0])
        eye = torch.eye(len(c), dtype=c.dtype)
        return ((c - eye).square() * (eye + 0.0051 * (1 - eye))).sum()
    if name == "dino":
        W = F.normalize(m.prototypes.weight, dim=1)
        with torch.no_grad():
            t = [F.normalize(m.teacher_projector(m.teacher_backbone(view)), dim=1) @ W.T for view in x]
        q = [((a - m.center_K) / 0.04).softmax(1) for a in t]
        s = [(F.normalize(a, dim=1) @ W.T / 0.1).log_softmax(1) for a in z]
        return -sum((q[i] * s[1 - i]).sum(1).mean() for i in (0, 1)) / 2
    if name == "lejepa":
        A = F.normalize(normal(8, 16, torch.tensor(0)), dim=1).to(z[0].dtype)
        t = torch.linspace(0, 3, 17, dtype=A.dtype)
        phi = torch.exp(-(t**2) / 2)
        w = phi * torch.tensor([1 / 2, *[1.0] * 15, 1 / 2]) * 2 * 3 / 16
        angles = [(a @ A.T)[:, :, None] * t for a in z]
        error = [(x.cos().mean(0) - phi) ** 2 + x.sin().mean(0) ** 2 for x in angles]
        return 0.98 * (z[0] - z[1]).square().mean() / 4 + 0.02 * len(z[0]) * sum((e @ w).mean() for e in error) / 2
    if name == "nnclr":
        with torch.no_grad():
            n = [m.queue_KE[(F.normalize(a, dim=1) @ m.queue_KE.T).argmax(1)] for a in z]
        p = [F.normalize(m.predictor(a), dim=1) for a in z]
        return sum(-(n[i] @ p[1 - i].T / 0.1).log_softmax(1).diagonal().mean() for i in (0, 1)) / 2
    if name == "vicreg":
        C = [torch.cov(a.T) for a in z]
        hinge = [(1 - (c.diagonal() + 1e-4).sqrt()).clamp(min=0).mean() for c in C]
        off = [(c - c.diagonal().diag()).square().sum() / len(c) for c in C]
        return 25 * (z[0] - z[1]).square().mean() + 25 * sum(hinge) / 2 + sum(off)
    scores = [F.normalize(a, dim=1) @ m.prototypes.weight.T for a in z]
    q = [plain_sinkhorn(a.detach(), 0.05, 3) for a in scores]
    return sum(-(q[i] * (scores[1 - i] / 0.1).log_softmax(1)).sum(1).mean() for i in (0, 1)) / 2


@pytest.mark.parametrize("name", list(METHODS))
def test_gradients_flow_where_the_paper_says_and_nowhere_else(name):
    """Gradients equal those of the paper's loss in float64 with its stop-gradients; frozen parameters have none."""
    method, batch = build(name), views(8)
    twin = copy.deepcopy(method).double()
    method(batch).loss.backward()
    expected = expected_loss(name, twin, batch._replace(x_VBCHW=batch.x_VBCHW.double()))
    expected.backward()
    compared = 0
    for (key, p), q in zip(method.named_parameters(), twin.parameters(), strict=True):
        frozen = key.startswith(("key_", "target_", "teacher_"))
        assert p.requires_grad != frozen and (p.grad is None) == frozen, key
        if not frozen:
            compared += 1
            scale = float(q.grad.abs().max()) + 1e-6
            assert float((p.grad.double() - q.grad).abs().max()) < 2e-3 * scale + 2e-6, key
    assert compared == sum(p.requires_grad for p in method.parameters())
    assert all(b.grad_fn is None for b in method.buffers())


def test_nt_xent_matches_the_plain_formula_alone():
    random = torch.Generator().manual_seed(3)
    z1, z2 = (F.normalize(torch.randn(5, 7, generator=random), dim=1) for _ in range(2))
    assert nt_xent(z1, z2, 0.5, gather=True).item() == pytest.approx(plain_nt_xent(z1, z2, 0.5).item(), abs=1e-5)
