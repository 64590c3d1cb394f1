"""MoCo and AugSelf against plain formulas, in float64 where it matters."""

import copy

import pytest
import torch
import torch.nn.functional as F

from fastaugself.config import Pretrain
from fastaugself.errors import UsageError
from fastaugself.methods.augself import AugSelf, AugSelfLoss
from fastaugself.methods.base import Parts, Views
from fastaugself.methods.cassle import Cassle
from fastaugself.methods.moco import MoCo
from fastaugself.models.build import Backbone, build_backbone
from fastaugself_kernels import Targets, ViewPolicy, augself_targets, sample_params


def moco(**options):
    torch.manual_seed(0)
    backbone, width = build_backbone(Backbone(name="resnet18", width=8, stem="small"))
    return MoCo(queue=24, dim=16, **options).build(Parts(backbone, width, False, Cassle(), 0))


def views(*shape):
    return Views(torch.rand(*shape), torch.zeros(shape[1], dtype=torch.long))


def targets_of(count, mode="published"):
    policies = (ViewPolicy(rotation=0.5, solarize=0.5, solarize_threshold=(0.0, 1.0)),) * 2
    sizes = torch.full((count, 2), 64, dtype=torch.int32)
    params = sample_params(torch.arange(count), sizes, policies, seed=1, epoch=0)
    return augself_targets(params, sizes, policies, mode=mode)


def test_loss_is_the_cross_entropy_of_the_papers_logits():
    method = moco(temperature=0.3)
    batch = views(2, 6, 3, 16, 16)
    x = batch.x_VBCHW
    output = method(batch)
    twin = copy.deepcopy(method)
    q = F.normalize(twin.projector(twin.backbone(x[0])), dim=1).double()
    k = F.normalize(twin.key_projector(twin.key_backbone(x[1])), dim=1).double()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue_KE.double().T], 1) / 0.3
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    assert abs(output.loss.item() - expected.item()) < 1e-5


def test_gradients_reach_the_query_encoder_only():
    method = moco()
    method(views(2, 6, 3, 16, 16)).loss.backward()
    with_gradient = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert with_gradient == {"backbone", "projector"}
    assert method.queue_KE.grad_fn is None


@pytest.mark.parametrize("source", ["key", "query"])
def test_queue_is_a_ring_of_the_newest_entries(source):
    method = moco(queue_source=source)
    before = method.queue_KE.clone()
    entries = []
    for _ in range(3):
        batch = views(2, 10, 3, 16, 16)
        x = batch.x_VBCHW
        output = method(batch)
        twin = copy.deepcopy(method)
        projector, backbone, view = (
            (twin.key_projector, twin.key_backbone, x[1]) if source == "key" else (twin.projector, twin.backbone, x[0])
        )
        entries.append(F.normalize(projector(backbone(view)), dim=1).detach())
        torch.testing.assert_close(output.carry[0], entries[-1], atol=1e-6, rtol=1e-5)
        assert not output.carry[0].requires_grad
        method.after_step(output.carry, 0.5)
    expected = before.clone()
    for i, entry in enumerate(torch.cat(entries)):
        expected[i % 24] = entry
    torch.testing.assert_close(method.queue_KE, expected, atol=1e-6, rtol=1e-5)
    assert method.pointer.item() == 30 % 24


def test_key_encoder_follows_parameters_and_leaves_buffers_alone():
    method = moco(momentum=0.9)
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(torch.randn_like(p))
    key_before = copy.deepcopy(dict(method.key_backbone.named_parameters()))
    buffers_before = copy.deepcopy(dict(method.key_backbone.named_buffers()))
    method.after_step((torch.zeros(4, 16),), 0.5)
    for name, key in method.key_backbone.named_parameters():
        query = dict(method.backbone.named_parameters())[name]
        torch.testing.assert_close(key, 0.9 * key_before[name] + 0.1 * query, atol=1e-6, rtol=1e-5)
    for name, buffer in method.key_backbone.named_buffers():
        assert torch.equal(buffer, buffers_before[name])


def test_augself_loss_is_the_published_formula():
    torch.manual_seed(0)
    weights = AugSelf(crop=1, color=1, flip=1, blur=1, rotation=1, solarize=1, hidden=32, mode="fixed")
    loss = AugSelfLoss(weights, 20)
    f1, f2 = torch.randn(8, 20), torch.randn(8, 20)
    ab, ba = targets_of(8, "fixed")
    losses = loss(f1, f2, (ab, ba))
    twin = copy.deepcopy(loss)
    pairs = torch.stack([torch.cat([f1[i], f2[i]]) for i in range(8)] + [torch.cat([f2[i], f1[i]]) for i in range(8)])
    raw = {name: head(pairs).double() for name, head in twin.heads.items()}
    both = {field: torch.cat([getattr(ab, field), getattr(ba, field)]).double() for field in Targets._fields}
    expected = {
        "crop": (raw["crop"].tanh() - both["crop_B4"]).square().mean(),
        "color": (raw["color"].tanh() - both["color_B4"]).square().mean(),
        "blur": (raw["blur"].tanh() - both["blur_B1"]).square().mean(),
        "solarize": (raw["solarize"].tanh() - both["solarize_B1"]).square().mean(),
        "flip": -(
            both["flip_B1"] * raw["flip"].sigmoid().log() + (1 - both["flip_B1"]) * (1 - raw["flip"].sigmoid()).log()
        ).mean(),
        "rotation": -raw["rotation"].log_softmax(1)[torch.arange(16), both["rotation_B"].long()].mean(),
    }
    assert list(losses) == list(expected) or set(losses) == set(expected)
    for name, value in expected.items():
        assert abs(losses[name].item() - value.item()) < 1e-5, name


def test_published_solarize_compares_every_prediction_with_every_target():
    loss = AugSelfLoss(AugSelf(crop=0, color=0, solarize=1), 20)
    targets = targets_of(8)
    prediction = torch.randn(16, 1)
    target = torch.cat([targets[0].solarize_B1, targets[1].solarize_B1]).view(16)
    expected = (prediction.tanh() - target).square()  # [16, 1] - [16]: broadcast to [16, 16]
    assert expected.shape == (16, 16)
    torch.testing.assert_close(loss.losses({"solarize": prediction}, targets)["solarize"], expected.mean())


def test_heads_that_predict_nothing_stay_at_the_published_levels():
    loss = AugSelfLoss(AugSelf(crop=1, color=1), 20)
    policies = (ViewPolicy.moco_v2(),) * 2
    sizes = torch.full((20_000, 2), 224, dtype=torch.int32)
    params = sample_params(torch.arange(20_000), sizes, policies, seed=1, epoch=0)
    null = loss.null_losses(augself_targets(params, sizes, policies))
    assert abs(null["color"].item() - 0.133) < 0.002
    assert abs(null["crop"].item() - 0.032) < 0.001


def test_a_head_exists_where_its_weight_is_positive():
    assert set(AugSelfLoss(AugSelf(crop=0.5, color=0, flip=1), 20).heads) == {"crop", "flip"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: Pretrain(method=MoCo(queue=1000)), r"--method.queue 1000 must be a multiple of --batch-size 256"),
        (lambda: Pretrain(augself=AugSelf(rotation=1)), "--view.rotation"),
        (lambda: Pretrain(augself=AugSelf(solarize=1)), "--view.solarize"),
        (lambda: AugSelf(crop=-1), "--augself.crop must be at least 0, got -1"),
        (lambda: MoCo(temperature=0), "--method.temperature"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        options()
