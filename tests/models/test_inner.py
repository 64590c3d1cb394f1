"""Features of inner layers: those that a hook sees, without a hook, for this project's ResNets and timm's models."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_aware import config_of, learner_of, step_of, views_of
from torch import nn

from fastaugself import SER, AugSelf, Backbone, MoCo, MoCoV3, SimCLR
from fastaugself.errors import UsageError
from fastaugself.models.build import build_backbone
from fastaugself.models.inner import forward_inner, inner_map, layer_widths, pooled
from fastaugself.report.predictions import evaluate_heads
from fastaugself.training.optim import set_learning_rate
from fastaugself.training.setup import check_installation

LAYERS = {
    Backbone(name="resnet18", width=8, stem="small"): ("layer1", "layer3"),
    Backbone(name="resnet50", width=8): ("layer2", "layer4"),
    Backbone(name="timm:test_vit"): ("block1", "block3", "block6"),
    Backbone(name="timm:test_vit3"): ("block2",),
    Backbone(name="timm:test_convnext"): ("stage1", "stage3"),
}


@pytest.fixture(autouse=True)
def installed(timm):
    """timm, which does not import without the fixture."""


def module_of(backbone, layer):
    """The module whose output is the feature map of the layer."""
    if layer.startswith("block"):
        return backbone.blocks[int(layer[5:]) - 1]
    return backbone.stages[int(layer[5:]) - 1] if layer.startswith("stage") else getattr(backbone, layer)


@pytest.mark.parametrize("config", LAYERS, ids=lambda config: config.name)
def test_maps_are_those_that_a_hook_sees(config):
    torch.manual_seed(0)
    backbone, _ = build_backbone(config, image_size=48)
    backbone.eval()
    x, layers, seen = torch.randn(2, 3, 48, 48), LAYERS[config], {}
    hooks = [
        module_of(backbone, layer).register_forward_hook(lambda m, i, o, layer=layer: seen.update({layer: o}))
        for layer in layers
    ]
    expected = backbone(x)
    for hook in hooks:
        hook.remove()
    found, maps = forward_inner(backbone, x, layers)
    assert torch.equal(found, expected)
    assert tuple(maps) == layers
    widths = layer_widths(backbone)
    for layer in layers:
        want = seen[layer]
        if layer.startswith("block"):  # patch tokens, normalised over channels
            tokens = want[:, -9:]
            want = (tokens - tokens.mean(2, keepdim=True)) / (tokens.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
            want = want.transpose(1, 2).unflatten(2, (3, 3))
        torch.testing.assert_close(maps[layer], want, rtol=1e-4, atol=1e-4)
        assert maps[layer].shape[1] == widths[layer]
        torch.testing.assert_close(pooled(maps[layer]), maps[layer].flatten(2).mean(2))
    assert forward_inner(backbone, x, ())[1] == {}


def of_timm(timm, name, **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options).eval()


def bits_and_widths(backbone, size):
    """Asserts that each layer alone, and all of them, leave the pooled features as they are, with the right widths."""
    x, widths = torch.randn(1, 3, size, size), layer_widths(backbone)
    with torch.no_grad():
        expected = backbone(x)
        for layers in (*((layer,) for layer in widths), tuple(reversed(widths))):
            found, maps = forward_inner(backbone, x, layers)
            assert torch.equal(found, expected) and maps.keys() == set(layers)
            assert all(torch.equal(inner_map(backbone, x, layer), maps[layer]) for layer in layers)
            assert {layer: maps[layer].shape[1] for layer in layers} == {layer: widths[layer] for layer in layers}
    return maps


def test_pooled_features_have_the_bits_of_the_plain_forward_pass(timm):
    """For the ResNets in both modes, ViTs of any patch, class token and pooling, and every family of test models."""
    for name in ("resnet18", "resnet50"):
        backbone, _ = build_backbone(Backbone(name=name, width=8))
        assert list(layer_widths(backbone)) == ["layer1", "layer2", "layer3", "layer4"]
        bits_and_widths(backbone.eval(), 40)
        backbone.train()
        x = torch.randn(3, 3, 40, 40)
        assert torch.equal(backbone(x), forward_inner(backbone, x, ("layer2",))[0])  # batch statistics
    maps = bits_and_widths(of_timm(timm, "vit_small_patch16_224", img_size=32, patch_size=8), 32)
    assert len(maps) == 12 and {tuple(x.shape) for x in maps.values()} == {(1, 384, 4, 4)}
    names = timm.list_models("test_*")
    assert len(names) > 10
    for name in names:
        size = 48 if not timm.get_pretrained_cfg(name).fixed_input_size else 160
        bits_and_widths(of_timm(timm, name), size)


def test_blocks_that_are_not_layers_are_counted_by_stage(timm):
    """Hiera has 10 blocks and 4 maps, and would stop at the last map that is asked for."""
    backbone = of_timm(timm, "hiera_tiny_224", img_size=(64, 64))
    maps = bits_and_widths(backbone, 64)
    assert maps.keys() == {"stage1", "stage2", "stage3", "stage4"} and maps["stage1"].shape[2:] == (16, 16)


def test_a_map_alone_does_not_run_the_blocks_above(timm):
    backbone, ran = of_timm(timm, "test_vit", img_size=48), []
    for i, block in enumerate(backbone.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    inner_map(backbone, torch.randn(2, 3, 48, 48), "block2")
    assert ran == [0, 1]


@pytest.mark.parametrize("name", ["resnet18", "timm:test_vit"])
def test_a_step_with_an_inner_layer_compiles_in_one_graph(name):
    config = augself_at("layer2" if name == "resnet18" else "block2", name)
    learner, views = learner_of(config), views_of(config)
    expected = learner(views).loss
    torch._dynamo.reset()
    compiled = torch.compile(learner_of(config), backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(views).loss, expected, rtol=1e-4, atol=1e-5)


def augself_at(layer, name="resnet18", method="simclr", **options):
    backbone = Backbone(name=name) if name.startswith("timm:") else Backbone(name=name, width=4, stem="small")
    augself = AugSelf(crop=1.0, color=0.5, hidden=8, layer=layer, **options)
    config = config_of(method=method, augself=augself, backbone=backbone)
    return config if name == "resnet18" else dataclasses.replace(config, view=dataclasses.replace(config.view, size=48))


@pytest.mark.parametrize("batched", [False, True])
def test_the_heads_take_the_pooled_features_of_the_layer(batched):
    config = augself_at("layer3")
    learner, views = learner_of(config, batched_views=batched), views_of(config)
    heads = learner.augself
    assert heads.mlps.first_KHI.shape[2] == 2 * 16  # layer3 of a ResNet-18 of width 4
    maps, (layer3, hook) = [], (learner.method.backbone.layer3, None)
    hook = layer3.register_forward_hook(lambda m, i, o: maps.append(o))
    output = learner(views)
    hook.remove()
    both = maps[0].chunk(2) if batched else maps
    first, second = (m.mean((2, 3)) for m in both)
    heads.eval()
    learner_losses = {name: output.metrics["loss_" + name] for name in ("crop", "color")}
    heads.train()
    expected = heads.losses(heads.predict(first, second), heads.targets(views.params_VBP, views.sizes_B2))
    for name, value in expected.items():
        torch.testing.assert_close(learner_losses[name], value.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "name", "parts"),
    [
        ("layer2", "resnet18", ("layer1", "layer2", "layer3", "layer4")),
        ("block2", "timm:test_vit", ("blocks.0", "blocks.1", "blocks.2", "blocks.5")),
    ],
)
def test_gradients_reach_the_layer_and_nothing_above_it(layer, name, parts):
    config = augself_at(layer, name, only=True)
    learner = learner_of(config)
    learner(views_of(config)).loss.backward()
    for part, reached in zip(parts, (True, True, False, False), strict=True):
        grads = [p.grad for p in learner.method.backbone.get_submodule(part).parameters()]
        assert all(g is not None for g in grads)  # DDP waits for every parameter
        assert any(g.abs().sum() > 0 for g in grads) == reached, part


DDP = """
import sys
sys.path.insert(0, sys.argv[2])
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tiny_aware import config_of, learner_of, views_of
from fastaugself import AugSelf

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meet", rank=0, world_size=1)
config = config_of(augself=AugSelf(crop=1.0, color=0.5, hidden=8, layer="layer2", only=True))
model = DistributedDataParallel(learner_of(config))
for _ in range(3):
    model(views_of(config)).loss.backward()
"""


def test_ddp_does_not_wait_for_layers_above(tmp_path):
    helpers = str(Path(__file__).parents[1] / "helpers")
    subprocess.run([sys.executable, "-c", DDP, str(tmp_path), helpers], check=True, timeout=120)


@pytest.mark.parametrize("method", [MoCo(queue=32, dim=8), MoCoV3(dim=8, hidden=16)])
def test_view_2_comes_from_the_encoder_that_sees_it_and_the_report_does_the_same(method):
    config = augself_at("layer3", method=method)
    learner, views = learner_of(config), views_of(config)
    momentum = isinstance(method, MoCo)
    encoder = learner.method.momentum_backbone if momentum else learner.method.backbone
    seen = []
    hook = encoder.layer3.register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    taken = []
    original = learner.augself.predict
    learner.augself.predict = lambda f1, f2: (taken.extend((f1, f2)), original(f1, f2))[1]
    learner(views)
    hook.remove()
    second = seen[0] if momentum else seen[1]
    torch.testing.assert_close(taken[1].detach(), second.mean((2, 3)))
    assert taken[1].requires_grad != momentum
    learner.train()
    again = learner.augself.encode(learner.method, views.x_VBCHW[1], 1)
    torch.testing.assert_close(again.detach(), taken[1].detach())


def test_layers_that_do_not_exist_are_refused_before_data_is_opened():
    with pytest.raises(UsageError, match=r"layer layer9: resnet18 has no such layer.*pass --augself\.layer layer3"):
        augself_at("layer9")
    with pytest.raises(UsageError, match=r"--augself\.layer block1: resnet18 has no such layer"):
        augself_at("block1")
    with pytest.raises(UsageError, match=r"--augself\.layer layer3: with --method\.shuffle.*--method\.no-shuffle"):
        augself_at("layer3", method=MoCo(queue=32, dim=8, shuffle=True))
    config = augself_at("block99", "timm:test_vit")
    with pytest.raises(
        UsageError, match=r"--augself\.layer block99: .*its layers are block1, .*--augself\.layer block5"
    ):
        check_installation(config, torch.device("cpu"))
    check_installation(augself_at("block2", "timm:test_vit"), torch.device("cpu"))
    config = config_of("ser", aware=(SER(layer="block99"),))
    with pytest.raises(UsageError, match=r"pass --ser\.layer block5, or --ser\.weight 0"):  # SER knows no `last`
        check_installation(config, torch.device("cpu"))


RUNS = {
    "moco": {"augself": AugSelf(crop=1.0, color=0.5, hidden=8, layer="layer3")},
    "vit": {
        "augself": AugSelf(crop=1.0, color=0.5, hidden=8, layer="block2"),
        "method": SimCLR(dim=8),
        "backbone": Backbone(name="timm:test_vit"),
        "view": config_of("ser").view,
    },
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_resumes_with_the_same_bits_and_the_report_takes_the_features_of_the_layer(run, beton, tmp_path):
    whole = tiny_runs.train(tiny_runs.config(beton, tmp_path / "whole", max_steps=5, **RUNS[run]))
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=2, **RUNS[run]))
    tiny_runs.train(tiny_runs.config(beton, tmp_path / "parts", max_steps=5, **RUNS[run]))
    states = [tiny_runs.saved_weights(tmp_path / part) for part in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items() if isinstance(v, torch.Tensor))

    method, heads, seen, taken = whole.learner.method, whole.learner.augself, [], []
    name = "layer3" if run == "moco" else "blocks.1"
    encoders = (method.backbone, method.backbone if run == "vit" else method.momentum_backbone)
    hooks = [
        encoder.get_submodule(name).register_forward_hook(lambda m, i, o: seen.append(o))
        for encoder in dict.fromkeys(encoders)
    ]
    original = heads.predict
    heads.predict = lambda f1, f2: (taken.extend((f1, f2)), original(f1, f2))[1]
    found = evaluate_heads(whole, cases=2, count=8)
    for hook in hooks:
        hook.remove()
    del heads.predict
    assert found.total == 8 and {score.head for score in found.scores} == {"crop", "color"}
    assert len(seen) == len(taken) == 4  # two views of the cases, and of the pairs that are scored
    for output, features in zip(seen, taken, strict=True):
        if run == "vit":
            tokens = output[:, -9:]
            expected = nn.functional.layer_norm(tokens, tokens.shape[-1:]).mean(1)
        else:
            expected = output.mean((2, 3))
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_a_method_that_encodes_by_itself_is_told():
    config = augself_at("layer3")
    learner = learner_of(config)

    class Own(type(learner.method)):
        def encode(self, backbone, views):
            return backbone(views.x_VBCHW[0]), backbone(views.x_VBCHW[1])

    learner.method.__class__ = Own
    with pytest.raises(ValueError, match=r"Own does not encode both views with Method\.encode"):
        learner(views_of(config))


def test_a_step_on_a_vit_trains_its_first_blocks_with_the_heads():
    config = augself_at("block2", "timm:test_vit", method=SimCLR(dim=8))
    learner, views = learner_of(config), views_of(config)
    step = step_of(config, learner)
    set_learning_rate(step.optimizer, 0.02, 0.02)
    before = float(step(views, global_step=0, progress=0.1).metrics["loss_crop"])
    for i in range(1, 30):
        last = step(views, global_step=i, progress=0.1)
    assert float(last.metrics["loss_crop"]) < before


def test_nothing_is_collected_where_nothing_asks():
    config = config_of("essl")
    learner = learner_of(config)
    seen = []
    original = type(learner.method).forward
    learner.method.forward = lambda views: (seen.append(views.inner), original(learner.method, views))[1]
    learner(views_of(config))
    assert seen == [None] and isinstance(learner.method.backbone, nn.Module)
