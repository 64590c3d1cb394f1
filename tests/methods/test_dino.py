"""DINO against its formulas in float64, against lightly's loss, and its schedules, on ResNets and ViTs."""

import copy
import dataclasses
import math

import pytest
import torch
from method_cases import build, views
from tiny_aware import config_of, learner_of, views_of

from fastaugself import DINO, ESSL, AugSelf, Backbone, ViewPolicy
from fastaugself.aware.equimod import RoutedProjector
from fastaugself.errors import UsageError
from fastaugself.methods.base import BuildContext
from fastaugself.methods.dino import initialize, self_distillation
from fastaugself.training.setup import check_installation

OPTIONS = {"dim": 16, "hidden": 32, "prototypes": 12}
SMALL = DINO(dim=8, hidden=16, prototypes=6, freeze_steps=0)


def plain_loss(student, teacher, center, temperature, sharp):
    """Equation 3 pair by pair and sample by sample."""
    losses = []
    for a, t in enumerate(teacher):
        for b, s in enumerate(student):
            if a == b:
                continue
            for i in range(len(t)):
                p = torch.exp((t[i] - center).double() / sharp)
                q = torch.exp(s[i].double() / temperature)
                losses.append(-((p / p.sum()) * (q / q.sum()).log()).sum())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("crops", [2, 5])
def test_the_loss_is_equation_3_over_all_pairs_of_a_global_view_and_another_crop(crops):
    random = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(n, 7, 9, generator=random) for n in (crops, 2))
    center = torch.randn(9, generator=random)
    found = self_distillation(list(student), list(teacher), center, 0.1, torch.tensor(0.05))
    torch.testing.assert_close(found.double(), plain_loss(student, teacher, center, 0.1, 0.05), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fixed_length", [True, False])
def test_scores_are_products_with_normalised_prototypes(fixed_length):
    method, batch = build("dino", **OPTIONS, fixed_length=fixed_length), views(7, local_crops=3)
    with torch.no_grad():
        for module in (method.prototypes, method.teacher_prototypes):
            module.weight.mul_(3)
            if not fixed_length:
                module.length_K.uniform_(0.5, 2)
        for p in (*method.teacher_backbone.parameters(), *method.teacher_projector.parameters()):
            p.mul_(1.1)
        method.center_K.normal_()
    twin = copy.deepcopy(method)
    output = method(batch)

    def scores(projector, backbone, prototypes, x):
        z, w = projector(backbone(x)).double(), prototypes.weight.double()
        cosine = (z / z.norm(dim=1, keepdim=True)) @ (w / w.norm(dim=1, keepdim=True)).T
        return cosine if fixed_length else cosine * prototypes.length_K

    student = [scores(twin.projector, twin.backbone, twin.prototypes, x) for x in (*batch.x_VBCHW, *batch.local_LBCHW)]
    teacher = [scores(twin.teacher_projector, twin.teacher_backbone, twin.teacher_prototypes, x) for x in batch.x_VBCHW]
    expected = plain_loss(student, teacher, twin.center_K, 0.1, 0.04)
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-4, atol=1e-4)
    mean = torch.cat(teacher).mean(0)
    method.update_queue(output.queue_update, 0.5)
    torch.testing.assert_close(method.center_K.double(), 0.9 * twin.center_K + 0.1 * mean, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_an_ema_and_its_temperature_rises_linearly():
    method = build("dino", **OPTIONS, teacher_temperature=0.07, teacher_warmup=0.5)
    assert float(method.teacher_temperature) == pytest.approx(0.04)
    with torch.no_grad():
        for p in (*method.backbone.parameters(), *method.projector.parameters(), *method.prototypes.parameters()):
            p.add_(torch.randn_like(p))
    names = ("backbone", "projector", "prototypes")
    before = {name: [p.clone() for p in getattr(method, "teacher_" + name).parameters()] for name in names}
    method.update_ema(0.25)
    m = 1 - 0.004 * (math.cos(math.pi * 0.25) + 1) / 2
    for name in names:
        now, student = (getattr(method, prefix + name).parameters() for prefix in ("teacher_", ""))
        for teacher, was, parameter in zip(now, before[name], student, strict=True):
            torch.testing.assert_close(teacher, m * was + (1 - m) * parameter)
    assert float(method.teacher_temperature) == pytest.approx(0.055)
    for progress in (0.5, 0.9, 1.0):
        method.update_ema(progress)
        assert float(method.teacher_temperature) == pytest.approx(0.07)
    assert float(build("dino", **OPTIONS).teacher_temperature) == pytest.approx(0.04)


@pytest.mark.parametrize("fixed_length", [True, False])
def test_the_prototypes_are_frozen_in_the_first_steps(fixed_length):
    method = build("dino", **OPTIONS, freeze_steps=2, fixed_length=fixed_length)
    for step in range(4):
        method.zero_grad()
        method(views()).loss.backward()
        assert all(p.grad is not None for p in method.prototypes.parameters())
        method.after_backward(step)
        assert all((p.grad is None) == (step < 2) for p in method.prototypes.parameters())
        assert all(p.grad is not None for p in method.projector.parameters())


def test_state_survives_a_checkpoint():
    method = build("dino", **OPTIONS, teacher_temperature=0.07, teacher_warmup=1.0)
    for step in range(2):
        output = method(views(seed=step))
        method.update_ema(step / 2)
        method.update_queue(output.queue_update, step / 2)
    twin = build("dino", **OPTIONS, teacher_temperature=0.07, teacher_warmup=1.0)
    twin.load_state_dict(method.state_dict())
    assert float(method.center_K.abs().sum()) > 0
    assert torch.equal(twin.center_K, method.center_K) and twin.teacher_temperature == method.teacher_temperature
    assert torch.equal(method(views(seed=9)).loss, twin(views(seed=9)).loss)


def test_the_head_starts_with_small_weights_and_no_bias():
    torch.manual_seed(0)
    method = DINO(prototypes=8).build(BuildContext(torch.nn.Identity(), 512))
    for module in method.projector.modules():
        if isinstance(module, torch.nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
            assert not module.bias.any()


def test_scores_are_float32_under_autocast():
    method = build("dino", **OPTIONS)
    z = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method.prototypes(z)
    assert torch.equal(rounded, method.prototypes(z))


def test_value_gradient_and_centre_are_those_of_lightly(lightly_loss):
    random = torch.Generator().manual_seed(0)
    scores, teacher = (torch.randn(n, 8, 12, generator=random) for n in (5, 2))
    ours, theirs = (scores.clone().requires_grad_() for _ in range(2))
    method, expected = build("dino", **OPTIONS), lightly_loss.DINOLoss(output_dim=12, teacher_temp=0.04)
    for _ in range(2):  # the second time with a centre
        for x in (ours, theirs):
            x.grad = None
        center, sharp = method.center_K.clone(), method.teacher_temperature
        loss = self_distillation(list(ours), list(teacher), center, 0.1, sharp)
        other = expected(list(teacher), list(theirs), teacher_temp=0.04)
        method.update_queue((teacher.mean((0, 1))[None],), 0.5)
        torch.testing.assert_close(loss, other)
        loss.backward()
        other.backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
        torch.testing.assert_close(method.center_K, expected.center.flatten())
    assert float(method.center_K.abs().sum()) > 0


LOCAL = {"view": ViewPolicy.moco_v2(48), "local_crop": ViewPolicy(size=32, scale=(0.05, 0.14)), "num_local_crops": 3}


@pytest.mark.parametrize("name", ["resnet18", "timm:test_vit"])
def test_resnets_and_vits_take_local_crops(name, request):
    if name.startswith("timm:"):
        request.getfixturevalue("timm")
        backbone = Backbone(name=name)
    else:
        backbone = Backbone(name=name, width=4, stem="small")
    config = config_of(method=SMALL, backbone=backbone, augself=AugSelf(crop=0.5, color=0.5, hidden=8), **LOCAL)
    check_installation(config, torch.device("cpu"))
    seen = []
    learner = learner_of(config)
    learner.method.backbone.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[-2:])))
    output = learner(views_of(config))
    output.loss.backward()
    assert seen.count((48, 48)) == 2 and seen.count((32, 32)) == 3
    student = [p for p in learner.parameters() if p.requires_grad]
    assert torch.isfinite(output.loss) and all(p.grad is not None and p.grad.isfinite().all() for p in student)
    assert sum(float(p.grad.abs().sum()) for p in learner.method.backbone.parameters()) > 0


def test_the_position_embedding_of_small_crops_is_resized(timm):
    """The features of a small image differ from those without positions, and state dicts are those of one size."""
    config = config_of(method=SMALL, backbone=Backbone(name="timm:test_vit"), **LOCAL)
    backbone = learner_of(config).method.backbone.eval()
    plain = learner_of(dataclasses.replace(config, num_local_crops=0)).method.backbone
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    assert all(a.shape == b.shape for a, b in zip(backbone.parameters(), plain.parameters(), strict=True))
    x = torch.rand(2, 3, 48, 48)
    plain.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(backbone(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("test_vit", 40, "40 px.*--local-crop.size 32"), ("cait_xxs24_224", 96, "one size.*--local-crop.size 224")],
)
def test_models_that_do_not_take_the_local_crops_are_refused_before_data_is_opened(name, size, message, timm):
    view = ViewPolicy.moco_v2(48 if name == "test_vit" else 224)
    local = {"local_crop": ViewPolicy(size=size, scale=(0.05, 0.14)), "num_local_crops": 2, "view": view}
    config = config_of(method=SMALL, backbone=Backbone(name=f"timm:{name}"), **local)
    with pytest.raises(UsageError, match=message):
        check_installation(config, torch.device("cpu"))


def test_normalising_is_part_of_the_scores():
    """The length of an embedding does not matter."""
    method = build("dino", **OPTIONS)
    z = torch.randn(5, 16)
    torch.testing.assert_close(method.prototypes(z), method.prototypes(7 * z))
    assert float(method.prototypes(z).detach().abs().max()) <= 1 + 1e-5
    torch.testing.assert_close(method.prototypes(method.prototypes.weight).diagonal(), torch.ones(12))


def test_the_small_view_of_an_objective_is_checked_too(timm):
    essl = ESSL(weight=0.4, view=ViewPolicy(size=40, scale=(0.2, 0.8)), hidden=16, dim=8)
    config = config_of(method=SMALL, backbone=Backbone(name="timm:test_vit"), aware=(essl,), view=ViewPolicy(size=48))
    with pytest.raises(UsageError, match=r"pass --essl\.view\.size 32"):
        check_installation(config, torch.device("cpu"))
    fits = dataclasses.replace(config, aware=(dataclasses.replace(essl, view=ViewPolicy(size=32, scale=(0.2, 0.8))),))
    check_installation(fits, torch.device("cpu"))
    assert torch.isfinite(learner_of(fits)(views_of(fits)).loss)


def test_it_is_built_with_a_projector_of_experts():
    """STAR's experts have neither hidden layers nor a last one of the projector's own; they start as DINO's layers."""
    projector = RoutedProjector(3, [64, 32, 32, 16])
    routers = [router.weight.clone() for router in (projector.invariant, projector.equivariant)]
    initialize(projector)
    for expert in projector.experts:
        linear = [layer for layer in expert.modules() if isinstance(layer, torch.nn.Linear)]
        assert linear and all(0.015 < layer.weight.std() < 0.025 for layer in linear)
    assert all(a.equal(b.weight) for a, b in zip(routers, (projector.invariant, projector.equivariant), strict=True))
