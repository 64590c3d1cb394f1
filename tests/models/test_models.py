"""Backbones, MLPs and synchronised batch norm against published sizes and torch."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fastaugself.errors import UsageError
from fastaugself.models.build import Backbone, build_backbone
from fastaugself.models.ema import ema_copy, ema_update
from fastaugself.models.heads import mlp


# Parameters without the classifier: torchvision's published totals minus fc (resnet18 11,689,512 - 513,000, ...).
@pytest.mark.parametrize(
    ("name", "parameters", "width"),
    [("resnet18", 11_176_512, 512), ("resnet34", 21_284_672, 512), ("resnet50", 23_508_032, 2048)],
)
def test_resnet_has_torchvisions_size_and_names(name, parameters, width):
    with torch.device("meta"):
        model, num_features = build_backbone(Backbone(name=name))
    assert num_features == width
    assert sum(p.numel() for p in model.parameters()) == parameters
    names = set(model.state_dict())
    expected = {"conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"}
    if name == "resnet50":
        expected |= {"layer1.0.downsample.1.weight", "layer4.2.conv3.weight", "layer4.2.bn3.num_batches_tracked"}
    assert expected <= names
    assert not any(n.startswith("fc") for n in names)


def test_resnet50_strides_its_3x3_as_torchvision_does():
    with torch.device("meta"):
        model, _ = build_backbone(Backbone(name="resnet50"))
    block = model.layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.downsample[0].stride) == ((1, 1), (2, 2), (2, 2))


def test_feature_map_of_the_imagenet_stem_is_a_32nd():
    model, _ = build_backbone(Backbone(name="resnet18", width=8))
    seen = []
    model.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 64)
    assert seen[0][2:] == (7, 7)


def test_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"'resnet5' is unknown .*; pass --backbone.name resnet50"):
        build_backbone(Backbone(name="resnet5"))


def test_zero_init_residual_makes_blocks_the_identity():
    model, _ = build_backbone(Backbone(name="resnet18", width=8, zero_init_residual=True))
    x = torch.rand(2, 8, 16, 16)
    assert torch.equal(model.layer1[0].eval()(x), x)


def test_mlp_of_augself_has_the_published_layers():
    layers = list(mlp([1024, 512, 512, 4]))
    kinds = [type(layer) for layer in layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [layer.bias is None for layer in layers if isinstance(layer, nn.Linear)] == [True, True, False]


SYNC_WORKER = """
import sys
import torch
import torch.distributed as dist
from fastaugself.models.norm import BatchNorm2d

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
norm = BatchNorm2d(3, sync=True)
x = torch.load(f"{folder}/inputs.pt").chunk(2)[rank].clone().requires_grad_()
y = norm(x)
(y * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
torch.save((y.detach(), x.grad, norm.running_mean, norm.running_var), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_synchronised_norm_equals_one_norm_over_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(6, 3, 5, 4) * 3 + 1
    torch.save(inputs, tmp_path / "inputs.pt")
    processes = [subprocess.Popen([sys.executable, "-c", SYNC_WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = nn.BatchNorm2d(3)
    x = inputs.clone().requires_grad_()
    y = whole(x)
    weights = torch.cat([torch.arange(half.numel()).view_as(half).sin() for half in y.chunk(2)])
    (y * weights).sum().backward()
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), y.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), x.grad, atol=1e-5, rtol=1e-4)
    for part in parts:
        torch.testing.assert_close(part[2], whole.running_mean)
        torch.testing.assert_close(part[3], whole.running_var)


def test_a_bare_last_layer_has_neither_norm_nor_bias():
    bare, plain, none = (mlp([3, 4, 2], last_norm=last) for last in ("bare", "plain", "none"))
    assert len(bare) == len(none) == 4 and len(plain) == 5
    assert bare[-1].bias is None and none[-1].bias is not None


def test_stochastic_depth_and_token_dropout_are_timms_and_absent_from_ema_copies(timm):
    """The EMA copy in training mode is the whole network: it equals the original in evaluation mode."""
    backbone, _ = build_backbone(
        Backbone(name="timm:vit_tiny_patch16_224", drop_path=0.3, patch_drop=0.5), image_size=32
    )
    assert [block.drop_path1.drop_prob for block in backbone.blocks[1:]] == pytest.approx(
        [0.3 * i / 11 for i in range(1, 12)]
    )
    seen = []
    backbone.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    x_BCHW = torch.randn(2, 3, 32, 32)
    random = backbone(x_BCHW)
    kept = ema_copy(backbone)
    whole = kept.train()(x_BCHW)
    expected = backbone.eval()(x_BCHW)
    assert seen == [1 + 4 // 2, 1 + 4, 1 + 4]  # the class token and two of four patches, then all
    torch.testing.assert_close(whole, expected)
    assert not torch.allclose(random, expected)
    assert kept.state_dict().keys() == backbone.state_dict().keys()
    ema_update([kept], [backbone], 0.5)
