"""Projectors and predictors have the published layers, CASSLE's conditioning, and exports without heads."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fastaugself import Augment, Pretrain, ViewPolicy
from fastaugself.aware.cassle import CASSLE, PUBLISHED, ConditionedProjector, projector_type
from fastaugself.data.ragged import RaggedBatch
from fastaugself.export.backbone import export_backbone
from fastaugself.methods import BYOL, DINO, NNCLR, BarlowTwins, LeJEPA, MoCo, MoCoV3, SimCLR, SimSiam, SwAV, VICReg
from fastaugself.methods.base import BuildContext, Views
from fastaugself.models.build import Backbone, build_backbone
from fastaugself.runs.build import build_learner
from fastaugself.training.batch import make_batch


def layers(module):
    """Layers in short: '2048-512' linear, '+b' with a bias; 'BN' batch norm, 'bn' without affine; R: ReLU, G: GELU."""
    found = []
    for m in module.modules():
        if isinstance(m, nn.Linear):
            found.append(f"{m.in_features}-{m.out_features}" + ("+b" if m.bias is not None else ""))
        elif isinstance(m, nn.BatchNorm1d):
            found.append("BN" if m.affine else "bn")
        elif isinstance(m, nn.ReLU):
            found.append("R")
        elif isinstance(m, nn.GELU):
            found.append("G")
    return " ".join(found)


def on_meta(config, num_features, cassle=None):
    with torch.device("meta"):
        return config.build(
            BuildContext(nn.Identity(), num_features, projector_type=projector_type(cassle or CASSLE()))
        )


# Method, feature width, layers of the projector, layers of the predictor: the papers', then AugSelf's and CASSLE's.
PUBLISHED_HEADS = [
    (MoCo(), 2048, "2048-2048+b R 2048-128+b", ""),
    (MoCo(projector_norm=True), 512, "512-512 BN R 512-128+b", ""),
    (SimSiam(), 2048, "2048-2048 BN R 2048-2048 BN R 2048-2048 bn", "2048-512 BN R 512-2048+b"),
    (SimSiam(layers=2, affine=True), 512, "512-2048 BN R 2048-2048 BN", "2048-512 BN R 512-2048+b"),
    (SimCLR(), 2048, "2048-2048 BN R 2048-128+b", ""),
    (SimCLR(layers=3, last_norm=True), 2048, "2048-2048 BN R 2048-2048 BN R 2048-128 BN", ""),
    (BYOL(), 2048, "2048-4096 BN R 4096-256+b", "256-4096 BN R 4096-256+b"),
    (BYOL(hidden=2048), 2048, "2048-2048 BN R 2048-256+b", "256-4096 BN R 4096-256+b"),
    (SwAV(), 2048, "2048-2048 BN R 2048-128+b", ""),
    (BarlowTwins(), 2048, "2048-8192 BN R 8192-8192 BN R 8192-8192 bn", ""),
    (NNCLR(), 2048, "2048-2048 BN R 2048-2048 BN R 2048-256 BN", "256-4096 BN R 4096-256+b"),
    (LeJEPA(), 2048, "2048-2048 BN R 2048-2048 BN R 2048-64+b", ""),
    (DINO(), 2048, "2048-2048+b G 2048-2048+b G 2048-256+b", ""),
    (DINO(projector_norm=True), 384, "384-2048 BN G 2048-2048 BN G 2048-256+b", ""),
    (VICReg(), 2048, "2048-8192 BN R 8192-8192 BN R 8192-8192+b", ""),
    (MoCoV3(), 2048, "2048-4096 BN R 4096-256 bn", "256-4096 BN R 4096-256+b"),
    (MoCoV3(projector_layers=3, predictor_norm=True), 384, "384-4096 BN R 4096-4096 BN R 4096-256 bn",
     "256-4096 BN R 4096-256 bn"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "num_features", "projector", "predictor"), PUBLISHED_HEADS)
def test_heads_have_the_published_layers(config, num_features, projector, predictor):
    method = on_meta(config, num_features)
    assert layers(method.projector) == projector
    assert layers(getattr(method, "predictor", nn.Identity())) == predictor
    for name in ("key_projector", "target_projector", "teacher_projector"):
        if hasattr(method, name):
            assert layers(getattr(method, name)) == projector
    if isinstance(config, SwAV):
        assert layers(method.prototypes) == "128-3000"


CONDITION_ENCODER = "13-64 BN R " + "64-64 BN R " * 4 + "64-64 BN"


@pytest.mark.parametrize(
    ("config", "projector"),
    [
        (MoCo(projector_norm=True), "2112-2048 BN R 2048-128+b"),
        (SimCLR(), "2112-2048 BN R 2048-128+b"),
        (SimSiam(affine=True), "2112-2048 BN R 2048-2048 BN R 2048-2048 BN"),
        (BYOL(hidden=2048), "2112-2048 BN R 2048-256+b"),
        (BarlowTwins(), "2112-8192 BN R 8192-8192 BN R 8192-8192 bn"),
        (MoCoV3(projector_layers=3), "2112-4096 BN R 4096-4096 BN R 4096-256 bn"),
    ],
)
def test_cassle_only_widens_the_first_layer(config, projector):
    method = on_meta(config, 2048, CASSLE(conditioning="concat"))
    assert layers(method.projector.condition_encoder) == CONDITION_ENCODER
    assert layers(method.projector) == f"{CONDITION_ENCODER} {projector}"
    plain = on_meta(config, 2048)
    assert layers(getattr(method, "predictor", nn.Identity())) == layers(getattr(plain, "predictor", nn.Identity()))
    more = sum(p.numel() for p in method.projector.parameters()) - sum(p.numel() for p in plain.projector.parameters())
    encoder = 13 * 64 + 5 * 64 * 64 + 6 * 2 * 64
    assert more == encoder + 64 * plain.projector.hidden[0].out_features


@pytest.mark.parametrize(
    ("cassle", "encoder", "first_inputs"),
    [
        (CASSLE(conditioning="add"), "13-64 BN R " + "64-64 BN R " * 4 + "64-512 BN", 512),
        (CASSLE(conditioning="multiply"), "13-64 BN R " + "64-64 BN R " * 4 + "64-512 BN", 512),
        (CASSLE(conditioning="hypernetwork"), CONDITION_ENCODER + " R", 512),
        (CASSLE(conditioning="concat", condition_encoder="raw"), "", 512 + 13),
        (
            CASSLE(conditioning="concat", include=(*PUBLISHED, "flip")),
            CONDITION_ENCODER.replace("13-64", "14-64"),
            512 + 64,
        ),
        (CASSLE(conditioning="concat", depth=2, width=16), "13-16 BN R 16-16 BN", 512 + 16),
        (CASSLE(), "", 512),
    ],
)
def test_every_conditioning_has_its_own_shape(cassle, encoder, first_inputs):
    projector = ConditionedProjector(cassle, [512, 512, 128])
    assert layers(projector.condition_encoder) == encoder
    assert projector.hidden[0].in_features == first_inputs
    f, condition = torch.randn(4, 512), torch.randn(4, max(1, cassle.condition_dim))
    assert projector(f, condition).shape == (4, 128)
    if cassle.conditioning == "hypernetwork":
        assert projector.weights.out_features == 512 * 128


def conditioned(conditioning):
    torch.manual_seed(0)
    return ConditionedProjector(CASSLE(conditioning=conditioning, depth=2, width=3), [6, 5, 4]).double()


@pytest.mark.parametrize("conditioning", ["concat", "add", "multiply", "hypernetwork"])
def test_conditioning_is_what_its_name_says(conditioning):
    projector = conditioned(conditioning)
    f, condition = torch.randn(7, 6).double(), torch.randn(7, 13).double()
    encoded = copy.deepcopy(projector.condition_encoder)(condition)
    hidden, last = copy.deepcopy(projector.hidden), copy.deepcopy(projector.last)
    expected = {
        "concat": lambda: last(hidden(torch.stack([torch.cat([f[i], encoded[i]]) for i in range(7)]))),
        "add": lambda: last(hidden(f + encoded)),
        "multiply": lambda: last(hidden(f * encoded)),
        "hypernetwork": lambda: torch.stack(
            [projector.weights(encoded[i]).view(4, 5) @ h for i, h in enumerate(hidden(f))]
        ),
    }[conditioning]()
    torch.testing.assert_close(projector(f, condition), expected)


@pytest.mark.parametrize(("widths", "activation"), [([6, 5, 4], "relu"), ([3, 7, 2, 5], "gelu"), ([4, 1], "relu")])
def test_a_hypernetwork_generates_every_layer_of_each_sample(widths, activation):
    """Against the formula, sample by sample: one linear layer makes the matrix and the bias of each layer."""
    torch.manual_seed(0)
    cassle = CASSLE(conditioning="hypernetwork-published", depth=2, width=3)
    projector = projector_type(cassle)(widths, last_norm="affine", activation=activation).double()
    own = nn.ModuleList([projector.hidden, projector.last])
    assert not any(isinstance(m, nn.BatchNorm1d) for m in own.modules())
    generated = sum(p.numel() for p in own.parameters())
    assert generated == (cassle.width + 1) * sum(i * o + o for i, o in pairwise(widths))
    f, condition = (torch.randn(9, n, dtype=torch.float64, requires_grad=True) for n in (widths[0], 13))
    encoder = copy.deepcopy(projector.condition_encoder)
    weights = [p.detach().clone().requires_grad_() for p in own.parameters()]
    relu = torch.relu if activation == "relu" else nn.functional.gelu
    expected = []
    for x, c in zip(f, encoder(condition), strict=True):
        for i, (a, (inputs, outputs)) in enumerate(zip(weights, pairwise(widths), strict=True)):
            parts = a.view(outputs, inputs + 1, cassle.width + 1)
            generated = parts[:, :, :-1] @ c + parts[:, :, -1]  # [outputs, inputs + 1]: the matrix and the bias
            x = generated[:, :-1] @ x + generated[:, -1]
            x = relu(x) if i < len(weights) - 1 else x
        expected.append(x)
    found, expected = projector(f, condition), torch.stack(expected)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(found)
    ours = torch.autograd.grad(
        found, [f, condition, *projector.condition_encoder.parameters(), *own.parameters()], upstream
    )
    theirs = torch.autograd.grad(expected, [f, condition, *encoder.parameters(), *weights], upstream)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="pass condition_Bn"):
        projector(f)


def test_a_generated_projector_begins_at_the_scale_of_its_input_and_has_the_stated_size():
    projector = projector_type(CASSLE(conditioning="hypernetwork-published"))([512, 512, 128])
    torch.manual_seed(0)
    z = projector(torch.randn(64, 512), torch.randn(64, 13))
    assert z.shape == (64, 128) and 0.3 < float(z.detach().std()) < 3
    for config, parameters in ((MoCo(), 290e6), (BarlowTwins(), 9.8e9)):  # as the documentation says
        method = on_meta(config, 2048, CASSLE(conditioning="hypernetwork-published"))
        assert sum(p.numel() for p in method.projector.parameters()) == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize(("name", "config"), [("key_projector", MoCo(queue=8, dim=4, momentum=0.9)),
                                              ("key_projector", MoCoV3(hidden=5, dim=4, momentum=0.9)),
                                              ("target_projector", BYOL(hidden=5, dim=4, momentum=0.9)),
                                              ("teacher_projector", DINO(hidden=5, dim=4, momentum=0.9))])  # fmt: skip
def test_ema_projectors_include_the_condition_encoder_and_use_the_condition_of_their_view(name, config):
    method = config.build(
        BuildContext(nn.Linear(6, 6), 6, projector_type=projector_type(CASSLE(conditioning="concat", depth=2, width=3)))
    )
    ema_projector, seen = getattr(method, name), []
    ema_projector.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    views = Views(torch.randn(2, 8, 6), torch.zeros(8).long(), torch.randn(2, 8, 13))
    output = method(views)
    # MoCo's key is view 2; the symmetric methods encode both views.
    expected = views.condition_VBn[1:] if isinstance(config, MoCo) else views.condition_VBn
    assert torch.equal(torch.stack(seen), expected)
    with torch.no_grad():
        for p in method.projector.condition_encoder.parameters():
            p.add_(torch.randn_like(p))
    before = [p.clone() for p in ema_projector.condition_encoder.parameters()]
    method.after_optimizer_step()
    method.update_ema(0.0)
    method.update_queue(output.queue_update, 0.0)
    pairs = zip(
        ema_projector.condition_encoder.parameters(),
        before,
        method.projector.condition_encoder.parameters(),
        strict=True,
    )
    for now, was, parameter in pairs:
        torch.testing.assert_close(now, 0.9 * was + 0.1 * parameter)
        assert not now.requires_grad


@pytest.mark.parametrize(("include", "columns"), [(PUBLISHED, 13), ((*PUBLISHED, "flip"), 14)])
def test_conditions_come_from_the_views_parameters(include, columns):
    config = Pretrain(
        view=ViewPolicy(size=16), augment=Augment(blur_kernel=3), cassle=CASSLE("concat", include=include)
    )
    pixels = torch.randint(0, 256, (4 * 20 * 24 * 3,), dtype=torch.uint8)
    sizes = torch.tensor([[20, 24]] * 4, dtype=torch.int32)
    batch = RaggedBatch(pixels, torch.arange(4) * 20 * 24 * 3, sizes, torch.zeros(4).long(), torch.arange(4))
    views = make_batch(config, batch, 0, torch.float32).views
    assert views.condition_VBn.shape == (2, 4, columns)
    assert (views.condition(0) != views.condition(1)).any()
    assert make_batch(dataclasses.replace(config, cassle=CASSLE()), batch, 0, torch.float32)[0].condition(0) is None


def test_an_export_has_only_the_backbone(tmp_path):
    backbone = Backbone(name="resnet18", width=8)
    config = Pretrain(
        backbone=backbone, method=SimSiam(dim=16, predictor_hidden=8), cassle=CASSLE(conditioning="concat")
    )
    learner = build_learner(config)
    weights = load_file(export_backbone(learner, config, tmp_path, step=0))
    model, _ = build_backbone(backbone)
    assert weights.keys() == model.state_dict().keys()
    model.load_state_dict(weights)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x), learner.method.backbone.eval()(x))
