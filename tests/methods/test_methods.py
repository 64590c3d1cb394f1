"""MoCo and AugSelf against plain formulas, in float64 where precision matters."""

import copy
import dataclasses
import sys

import pytest
import torch
import torch.nn.functional as F
from method_cases import SMALL
from torch import nn

from fastaugself.aware.augself import HEADS, AugSelf, AugSelfLoss
from fastaugself.config.schema import Augment, Pretrain
from fastaugself.methods import (
    BYOL,
    DINO,
    NNCLR,
    BarlowTwins,
    LeJEPA,
    MoCo,
    MoCoV3,
    SimCLR,
    SimSiam,
    Supervised,
    SwAV,
    VICReg,
)
from fastaugself.methods.base import BuildContext, Views
from fastaugself.models.build import Backbone, build_backbone
from fastaugself.models.heads import mlp
from fastaugself.runs.build import build_learner
from fastaugself_kernels import Targets, ViewPolicy, augself_targets, sample_params


def moco(**options):
    torch.manual_seed(0)
    backbone, width = build_backbone(Backbone(name="resnet18", width=8, stem="small"))
    return MoCo(queue=24, dim=16, **options).build(BuildContext(backbone, width))


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
        torch.testing.assert_close(output.queue_update[0], entries[-1], atol=1e-6, rtol=1e-5)
        assert not output.queue_update[0].requires_grad
        method.after_optimizer_step()
        method.update_ema(0.5)
        method.update_queue(output.queue_update, 0.5)
    expected = before.clone()
    for i, entry in enumerate(torch.cat(entries)):
        expected[i % 24] = entry
    torch.testing.assert_close(method.queue_KE, expected, atol=1e-6, rtol=1e-5)
    assert method.pointer.item() == 30 % 24


def test_the_key_encoder_is_an_ema_of_parameters_but_not_of_buffers():
    method = moco(momentum=0.9)
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(torch.randn_like(p))
    key_before = copy.deepcopy(dict(method.key_backbone.named_parameters()))
    buffers_before = copy.deepcopy(dict(method.key_backbone.named_buffers()))
    method.after_optimizer_step()
    method.update_ema(0.5)
    method.update_queue((torch.zeros(4, 16),), 0.5)
    for name, key in method.key_backbone.named_parameters():
        query = dict(method.backbone.named_parameters())[name]
        torch.testing.assert_close(key, 0.9 * key_before[name] + 0.1 * query, atol=1e-6, rtol=1e-5)
    for name, buffer in method.key_backbone.named_buffers():
        assert torch.equal(buffer, buffers_before[name])


@pytest.mark.parametrize("name", ["moco", "mocov3", "byol", "dino"])
@pytest.mark.parametrize(("schedule", "expected"), [(True, 0.92), (False, 0.9)])
def test_the_ema_momentum_moves_to_its_end_with_half_a_cosine_or_stays(name, schedule, expected, monkeypatch):
    """From 0.9 to 0.94: in the middle of training 0.92."""
    used = []
    module = sys.modules[type(SMALL[name]).__module__]
    monkeypatch.setattr(module, "ema_update", lambda *_: used.append(_[2]))
    options = dataclasses.replace(SMALL[name], momentum=0.9, momentum_schedule=schedule, momentum_end=0.94)
    method = options.build(BuildContext(nn.Sequential(nn.Flatten(), nn.Linear(12, 8)), 8))
    method.update_ema(0.5)
    method.update_ema(1.0)
    assert used == pytest.approx([expected, 0.94 if schedule else 0.9])


def test_the_last_layers_of_byol_and_of_moco_v3s_predictor_have_a_bias_only_if_requested():
    def last_biases(options):
        method = options.build(BuildContext(nn.Sequential(nn.Flatten(), nn.Linear(12, 8)), 8))
        return [part.bias is not None for part in (method.projector.last[0], method.predictor.layers[-1])]

    byol, mocov3 = SMALL["byol"], SMALL["mocov3"]
    assert last_biases(byol) == [True, True]
    assert last_biases(dataclasses.replace(byol, last_bias=False)) == [False, False]
    assert last_biases(mocov3) == [False, True]  # a batch norm follows MoCo v3's projector
    assert last_biases(dataclasses.replace(mocov3, predictor_bias=False)) == [False, False]


def separate_heads(loss):
    """One `mlp` per head, as in the paper, with the weights of the stacked heads."""
    stacked, hidden, heads, row = loss.mlps.state_dict(), loss.config.hidden, {}, 0
    for k, name in enumerate(loss.heads):
        channels, rows = slice(k * hidden, (k + 1) * hidden), slice(row, row + HEADS[name])
        head = mlp([stacked["first_KHI"].shape[2], hidden, hidden, HEADS[name]])
        state = {"0.weight": stacked["first_KHI"][k], "3.weight": stacked["second_KHH"][k]}
        state |= {"6.weight": stacked["last_OH"][rows], "6.bias": stacked["bias_O"][rows]}
        for layer, norm in (("1", "first_norm"), ("4", "second_norm")):
            for field in ("weight", "bias", "running_mean", "running_var"):
                state[f"{layer}.{field}"] = stacked[f"{norm}.{field}"][channels]
            state[f"{layer}.num_batches_tracked"] = stacked[f"{norm}.num_batches_tracked"]
        head.load_state_dict(state)
        heads[name], row = head, rows.stop
    return heads


ALL_HEADS = AugSelf(crop=1, color=1, flip=1, blur=1, rotation=1, solarize=1, hidden=32, mode="fixed")


def test_augself_loss_is_the_published_formula():
    torch.manual_seed(0)
    loss = AugSelfLoss(ALL_HEADS, 20).double()
    with torch.no_grad():
        for norm in (loss.mlps.first_norm, loss.mlps.second_norm):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    f1, f2 = torch.randn(8, 20).double(), torch.randn(8, 20).double()
    ab, ba = targets_of(8, "fixed")
    heads = separate_heads(loss)
    pairs = torch.stack([torch.cat([f1[i], f2[i]]) for i in range(8)] + [torch.cat([f2[i], f1[i]]) for i in range(8)])
    raw = {name: head.double()(pairs) for name, head in heads.items()}
    both = {field: torch.cat([getattr(ab, field), getattr(ba, field)]).double() for field in Targets._fields}
    expected = {
        "crop": (raw["crop"].tanh() - both["crop_B4"]).square().mean(),
        "color": (raw["color"].tanh() - both["color_B4"]).square().mean(),
        "flip": -(
            both["flip_B1"] * raw["flip"].sigmoid().log() + (1 - both["flip_B1"]) * (1 - raw["flip"].sigmoid()).log()
        ).mean(),
        "blur": (raw["blur"].tanh() - both["blur_B1"]).square().mean(),
        "rotation": -raw["rotation"].log_softmax(1)[torch.arange(16), both["rotation_B"].long()].mean(),
        "solarize": (raw["solarize"].tanh() - both["solarize_B1"]).square().mean(),
    }
    losses = loss.losses(loss.predict(f1, f2), (ab, ba))
    assert list(losses) == list(expected)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), abs=1e-6), name


def test_stacked_heads_train_like_separate_heads():
    torch.manual_seed(0)
    loss = AugSelfLoss(ALL_HEADS, 20)
    heads = torch.nn.ModuleDict(separate_heads(loss))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-2) for m in (loss, heads)]
    for _ in range(4):
        f1, f2 = torch.randn(2, 16, 20, requires_grad=True).unbind()
        pairs, gradients = torch.cat([torch.cat([f1, f2], 1), torch.cat([f2, f1], 1)]), []
        predictions = loss.predict(f1, f2), {name: head(pairs) for name, head in heads.items()}
        for optimizer, raw in zip(optimizers, predictions, strict=True):
            optimizer.zero_grad()
            total = sum(value for value in loss.losses(raw, targets_of(16, "fixed")).values())
            gradients.append(torch.autograd.grad(total, (f1, f2), retain_graph=True))
            total.backward()
            optimizer.step()
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    for name, head in separate_heads(loss).items():
        for key, value in head.state_dict().items():
            torch.testing.assert_close(value, heads[name].state_dict()[key], atol=1e-5, rtol=1e-4)


def test_the_number_of_launches_does_not_grow_with_the_number_of_heads():
    def launches(weights):
        loss = AugSelfLoss(AugSelf(**{"crop": 0, "color": 0, **dict.fromkeys(weights, 1)}, hidden=8), 20)
        with torch.profiler.profile() as profile:
            loss.predict(torch.randn(4, 20), torch.randn(4, 20))
        products = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
        return {event.key: event.count for event in profile.key_averages() if event.key in products}

    assert launches(["crop", "color", "flip", "blur", "rotation", "solarize"]) == launches(["crop"])


@pytest.mark.parametrize("num_features", [512, 2048])  # ResNet-18 and -50
def test_heads_have_the_published_shapes_and_initial_range(num_features):
    weights = AugSelf(crop=1, color=1, flip=1, blur=1, rotation=1, solarize=1)
    loss = AugSelfLoss(weights, num_features)
    # Linear(2D, 512), Linear(512, 512) without biases, Linear(512, out) with; two batch norms of 512.
    outputs = {"crop": 4, "color": 4, "flip": 1, "blur": 1, "rotation": 4, "solarize": 1}
    each = [2 * num_features * 512 + 512 * 512 + 512 * out + out + 4 * 512 for out in outputs.values()]
    assert sum(p.numel() for p in loss.parameters()) == sum(each)
    torch.manual_seed(0)
    raw = loss.predict(torch.randn(3, num_features), torch.randn(3, num_features))
    assert {name: value.shape for name, value in raw.items()} == {name: (6, out) for name, out in outputs.items()}
    fan_in = {"first_KHI": 2 * num_features, "second_KHH": 512, "last_OH": 512, "bias_O": 512}
    for name, inputs in fan_in.items():
        largest = getattr(loss.mlps, name).abs().max().item()
        assert largest <= inputs**-0.5 and (name == "bias_O" or largest > 0.99 * inputs**-0.5)


def step_of(method, augself=ALL_HEADS, B=6, **changes):
    """One forward and backward pass of a learner on noise. Returns the learner and its output."""
    policy = ViewPolicy(size=16, rotation=0.5, solarize=0.5, solarize_threshold=(0.0, 1.0))
    options = {"view": policy, "augment": Augment(blur_kernel=5), "batch_size": B, "method": method}
    config = Pretrain(**options, backbone=Backbone(name="resnet18", width=8, stem="small"), augself=augself, **changes)
    learner = build_learner(config, num_classes=3)
    sizes = torch.full((B, 2), 64, dtype=torch.int32)
    params = sample_params(torch.arange(B), sizes, config.policies, seed=1, epoch=0)
    step = learner(views(2, B, 3, 16, 16)._replace(params_VBP=params, sizes_B2=sizes))
    step.loss.backward()
    return learner, step


METHODS = {
    "moco": MoCo(queue=24, dim=16),
    "mocov3": MoCoV3(dim=16, hidden=32),
    "simsiam": SimSiam(dim=32, predictor_hidden=16),
    "simclr": SimCLR(dim=16),
    "byol": BYOL(dim=16, hidden=32, predictor_hidden=32),
    "swav": SwAV(dim=16, hidden=32, prototypes=12),
    "barlow": BarlowTwins(dim=32),
    "vicreg": VICReg(dim=32),
    "dino": DINO(dim=16, hidden=32, prototypes=12),
    "lejepa": LeJEPA(dim=16, hidden=32, directions=8),
    "nnclr": NNCLR(queue=24, dim=16, hidden=32, predictor_hidden=32),
    "supervised": Supervised(),
}


@pytest.mark.parametrize("name", METHODS)
def test_augself_joins_every_method_with_its_weights(name):
    weights = dataclasses.replace(ALL_HEADS, crop=0.25, blur=3.0)
    learner, step = step_of(METHODS[name], weights)
    parts = {key.removeprefix("loss_"): value.item() for key, value in step.metrics.items() if key[:5] == "loss_"}
    ssl = parts.pop("ssl")
    assert parts.keys() == weights.weights.keys()
    expected = ssl + sum(weights.weights[key] * value for key, value in parts.items())
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is not None for p in learner.augself.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_augself_reads_the_backbones_features_before_the_projector(name):
    """Features come from the trained encoder; with MoCo, those of view 2 come from the key encoder."""
    torch.manual_seed(0)
    backbone, width = build_backbone(Backbone(name="resnet18", width=8, stem="small"))
    method = METHODS[name].build(BuildContext(backbone, width, num_classes=3))
    with torch.no_grad():  # so that the key encoder differs from the encoder
        for p in method.backbone.parameters():
            p.mul_(1.1)
    batch = views(2, 6, 3, 16, 16)
    twin = copy.deepcopy(method)
    features = method(batch).features
    encoders = (twin.backbone, twin.key_backbone if name == "moco" else twin.backbone)
    for v in (0, 1):
        torch.testing.assert_close(features[v], encoders[v](batch.x_VBCHW[v]))
        assert features[v].requires_grad == (not (name == "moco" and v == 1))


@pytest.mark.parametrize("name", ["moco", "simsiam", "byol"])
def test_augself_only_trains_the_backbone_and_the_heads_only(name):
    learner, step = step_of(METHODS[name], augself=dataclasses.replace(ALL_HEADS, only=True))
    assert {key.split(".")[0] for key, _ in learner.method.named_parameters()} == {"backbone"}
    assert all(p.grad is not None for p in learner.parameters())
    assert "loss_ssl" not in step.metrics
    expected = sum(weight * step.metrics["loss_" + key].item() for key, weight in ALL_HEADS.weights.items())
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)


def test_published_solarize_compares_every_prediction_with_every_target():
    loss = AugSelfLoss(AugSelf(crop=0, color=0, solarize=1), 20)
    targets = targets_of(8)
    prediction = torch.randn(16, 1)
    target = torch.cat([targets[0].solarize_B1, targets[1].solarize_B1]).view(16)
    expected = (prediction.tanh() - target).square()  # [16, 1] - [16]: broadcast to [16, 16]
    assert expected.shape == (16, 16)
    torch.testing.assert_close(loss.losses({"solarize": prediction}, targets)["solarize"], expected.mean())


def test_baseline_losses_are_the_published_ones():
    policies = (ViewPolicy.moco_v2(),) * 2
    loss = AugSelfLoss(AugSelf(crop=1, color=1), 20, policies=policies)
    sizes = torch.full((20_000, 2), 224, dtype=torch.int32)
    params = sample_params(torch.arange(20_000), sizes, policies, seed=1, epoch=0)
    baseline = loss.baseline_losses(params, sizes)
    assert abs(baseline["color"].item() - 0.133) < 0.002
    assert abs(baseline["crop"].item() - 0.032) < 0.001


def test_a_head_exists_if_its_weight_is_positive():
    assert set(AugSelfLoss(AugSelf(crop=0.5, color=0, flip=1), 20).heads) == {"crop", "flip"}
