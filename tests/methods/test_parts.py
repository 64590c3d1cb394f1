"""Fast-MoCo: parts of views, their pairs, and the losses of MoCo v2 and v3 with them, against plain formulas."""

import copy
import dataclasses
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from method_cases import SMALL, build, views

from fastaugself import CASSLE, AugSelf, Backbone, Pretrain, ViewPolicy
from fastaugself.aware.predictor import ConditionalPredictor, predictor_type
from fastaugself.methods.base import BuildContext
from fastaugself.methods.parts import combine, split_views, stitched
from fastaugself.models.build import build_backbone
from fastaugself.runs.build import build_learner
from fastaugself_kernels import descriptors, sample_params

B = 6
SPLIT = {
    "moco": {**dataclasses.asdict(SMALL["moco"]), "split": 2},
    "mocov3": {**dataclasses.asdict(SMALL["mocov3"]), "split": 2},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_are_quarters_row_by_row_and_can_be_put_together(layout):
    x_BCHW = torch.arange(2 * 3 * 6 * 8.0).view(2, 3, 6, 8).to(memory_format=layout)
    parts = split_views(x_BCHW, 2)
    assert parts.shape == (8, 3, 3, 4) and parts.is_contiguous(memory_format=layout)
    quarters = [x_BCHW[:, :, i : i + 3, j : j + 4] for i in (0, 3) for j in (0, 4)]
    assert torch.equal(parts, torch.cat(quarters))
    assert torch.equal(stitched(parts, 2), x_BCHW)
    with pytest.raises(ValueError, match="images of 6 x 8 px cannot be cut in 4 x 4 equal parts"):
        split_views(x_BCHW, 4)
    assert torch.equal(stitched(split_views(x_BCHW[..., :6], 3), 3), x_BCHW[..., :6])


def test_every_pair_of_parts_is_combined_once():
    parts = torch.eye(4, dtype=torch.float64)
    made = torch.stack(combine(list(parts[:, None])))[:, 0]
    assert {tuple(row.tolist()) for row in made} == {
        tuple(0.5 * float(k in pair) for k in range(4)) for pair in combinations(range(4), 2)
    }


def pairs(backbone, x_BCHW):
    """The six combined features [6B, D] of one view, and the mean of its parts, written out."""
    h, w = x_BCHW.shape[2] // 2, x_BCHW.shape[3] // 2
    quarters = [x_BCHW[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w] for i in (0, 1) for j in (0, 1)]
    f = backbone(torch.cat(quarters)).view(4, len(x_BCHW), -1)
    return torch.cat([(f[a] + f[b]) / 2 for a in range(4) for b in range(a + 1, 4)]), f.mean(0)


@pytest.mark.parametrize("scaled", [True, False])
def test_mocov3_with_parts_is_the_papers_loss(scaled):
    """L = 1/12 sum over both directions and six pairs of the cross-entropy, in float64; times 4 T if scaled."""
    method, batch = build("mocov3", **{**SPLIT["mocov3"], "scaled_loss": scaled, "temperature": 0.5}), views(B)
    twin = copy.deepcopy(method).double()
    output = method(batch)
    x = batch.x_VBCHW.double()
    combined, means = zip(*[pairs(twin.backbone, x[v]) for v in (0, 1)], strict=True)
    q = [F.normalize(twin.predictor(twin.projector(c)), dim=1).view(6, B, -1) for c in combined]
    k = [F.normalize(twin.key_projector(twin.key_backbone(x[v])), dim=1) for v in (0, 1)]
    terms = [F.cross_entropy(part @ k[1 - v].T / 0.5, torch.arange(B)) for v in (0, 1) for part in q[v]]
    assert len(terms) == 12
    expected = sum(terms) / 12 * (4 * 0.5 if scaled else 1)
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-4, atol=1e-5)
    for found, mean in zip(output.features, means, strict=True):
        torch.testing.assert_close(found.double(), mean, rtol=1e-3, atol=1e-4)


def test_mocov2_with_parts_is_the_mean_over_six_queries_of_view_1():
    method, batch = build("moco", **SPLIT["moco"]), views(B)
    twin = copy.deepcopy(method).double()
    output = method(batch)
    combined, mean = pairs(twin.backbone, batch.x_VBCHW[0].double())
    q = F.normalize(twin.projector(combined), dim=1).view(6, B, -1)
    k = F.normalize(twin.key_projector(twin.key_backbone(batch.x_VBCHW[1].double())), dim=1)
    terms = []
    for part in q:
        logits = torch.cat([(part * k).sum(1, keepdim=True), part @ twin.queue_KE.T], 1) / 0.2
        terms.append(-logits.log_softmax(1)[:, 0].mean())
    torch.testing.assert_close(output.loss.double(), sum(terms) / 6, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.features[0].double(), mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(output.queue_update[0].double(), k, rtol=1e-3, atol=1e-4)


def test_local_crops_weigh_as_much_as_the_view_with_parts():
    method, batch = build("moco", **SPLIT["moco"]), views(B, local_crops=1)
    alone, both = copy.deepcopy(method), method(batch).loss
    local = views(B, local_crops=1)
    without = alone(batch._replace(local_LBCHW=None)).loss
    single = build("moco")
    single.load_state_dict(alone.state_dict())
    q = F.normalize(single.projector(single.backbone(local.local_LBCHW[0])), dim=1)
    k = F.normalize(single.key_projector(single.key_backbone(batch.x_VBCHW[1])), dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ single.queue_KE.T], 1) / 0.2
    torch.testing.assert_close(both, (without - logits.log_softmax(1)[:, 0].mean()) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SPLIT)
def test_gradients_reach_the_trained_networks_only(name):
    method = build(name, **SPLIT[name])
    method(views(B)).loss.backward()
    without = {n for n, p in method.named_parameters() if p.grad is None}
    assert without == {n for n, p in method.named_parameters() if n.startswith("key_")} and without


def test_conditions_of_projector_and_predictor_are_those_of_the_whole_view():
    """Rows of one view's six embeddings have its descriptors, in the order of the batch."""
    policies, sizes_B2 = (ViewPolicy.moco_v2(16),) * 2, torch.tensor([[30, 40]] * B, dtype=torch.int32)
    params_VBP = sample_params(torch.arange(B), sizes_B2, policies, seed=0, epoch=0)
    cassle = CASSLE(conditioning="concat", depth=1, width=4)
    condition_VBn = descriptors(params_VBP, sizes_B2, policies, torch.zeros(2, B, 3), include=cassle.include)
    method = build("mocov3", cassle=cassle, **SPLIT["mocov3"])
    seen = []
    method.projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    batch = views(B, condition_VBn)._replace(params_VBP=params_VBP, sizes_B2=sizes_B2)
    method(batch).loss.backward()
    for view in (0, 1):
        assert torch.equal(seen[view].view(6, B, -1), condition_VBn[view].expand(6, B, -1))
    backbone, width = build_backbone(Backbone(name="resnet18", width=8, stem="small"))
    options = ConditionalPredictor(conditioning="concat", width=4)
    parts = BuildContext(backbone, width, predictor_type=predictor_type(options, policies[0]))
    conditioned = type(SMALL["mocov3"])(**SPLIT["mocov3"]).build(parts)
    output = conditioned(views(B)._replace(params_VBP=params_VBP, sizes_B2=sizes_B2))
    assert output.loss.isfinite()


@pytest.mark.parametrize("name", SPLIT)
def test_augself_at_an_inner_layer_reads_the_maps_of_all_parts(name):
    """The mean over positions of the stitched map is the mean of the parts' means."""
    config = Pretrain(
        view=ViewPolicy.moco_v2(16),
        backbone=Backbone(name="resnet18", width=4, stem="small"),
        method=dataclasses.replace(SMALL[name], split=2),
        augself=AugSelf(crop=0.5, color=0.5, hidden=8, layer="layer3"),
        batch_size=8,
    )
    learner = build_learner(config, batched_views=True)
    sizes_B2 = torch.tensor([[30, 40]] * B, dtype=torch.int32)
    params_VBP = sample_params(torch.arange(B), sizes_B2, config.policies, seed=0, epoch=0)
    output = learner(views(B)._replace(params_VBP=params_VBP, sizes_B2=sizes_B2))
    output.loss.backward()
    assert output.metrics["loss_crop"].isfinite() and not learner.method.batched_views
