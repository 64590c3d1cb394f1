"""Layer-wise learning-rate decay: the groups are timm's."""

import pytest
import torch
from torch import nn

from fastaugself.config.optim import Optim
from fastaugself.errors import UsageError
from fastaugself.models.build import Backbone, build_backbone
from fastaugself.training.layer_decay import layer_groups, layers
from fastaugself.training.optim import optimizer_of, set_learning_rate

ADAMW = Optim("adamw", lr=1e-3, weight_decay=0.05, decay_norm_bias=False)


def by_name(groups, named):
    """(learning-rate scale, weight decay) of each parameter by its name."""
    names = {id(parameter): name for name, parameter in named}
    scale = "scale" if "scale" in groups[0] else "lr_scale"
    return {names[id(p)]: (group[scale], group["weight_decay"]) for group in groups for p in group["params"]}


def ours(backbone, head):
    """The values of a backbone's parameters and of its classifier's, under the names that timm gives the classifier."""
    classifier = nn.Linear(3, 2)
    named = [*backbone.named_parameters(), *((f"{head}.{name}", p) for name, p in classifier.named_parameters())]
    return by_name(layer_groups(backbone, classifier, ADAMW, layer_decay=0.65), named)


def theirs(timm, name, **options):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7, **options)
    without = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(model, weight_decay=0.05, no_weight_decay_list=without, layer_decay=0.65)
    return by_name(groups, model.named_parameters())


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet34", 16), ("resnet50", 16)])
def test_a_resnets_layers_are_timms(timm, name, blocks):
    with torch.device("meta"):
        backbone, _ = build_backbone(Backbone(name))
    found = ours(backbone, "fc")
    assert found == pytest.approx(theirs(timm, name))
    assert found["conv1.weight"] == pytest.approx((0.65 ** (blocks + 1), 0.05))
    assert found["layer4.1.bn2.weight"][1] == 0


@pytest.mark.parametrize(
    ("name", "head"),
    [("vit_tiny_patch16_224", "head"), ("convnext_atto", "head.fc"), ("swin_tiny_patch4_window7_224", "head.fc")],
)
def test_the_layers_of_timms_models_are_timms(timm, name, head):
    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0)
    assert ours(backbone, head) == pytest.approx(theirs(timm, name))


def test_a_vits_tokens_move_least_and_have_no_weight_decay(timm):
    with torch.device("meta"):
        backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    found = ours(backbone, "head")
    assert found["cls_token"] == found["pos_embed"] == pytest.approx((0.65**13, 0.0))
    assert found["norm.weight"] == found["blocks.11.norm1.weight"] == pytest.approx((0.65, 0.0))
    assert found["head.weight"] == (1.0, 0.05)


def test_without_decay_every_parameter_has_the_whole_learning_rate():
    groups = layer_groups(nn.Linear(4, 3), nn.Linear(3, 2), Optim("sgd", weight_decay=0.1), layer_decay=1.0)
    assert [(group["scale"], group["weight_decay"], len(group["params"])) for group in groups] == [(1.0, 0.1, 4)]


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UsageError, match="layers of Sequential are not known: pass --layer-decay 1"):
        layers(nn.Sequential(nn.Linear(4, 3)))
    backbone, _ = build_backbone(Backbone("resnet18", width=2))
    backbone.extra = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="layers of ResNet are not known"):
        layers(backbone)


def test_the_optimizer_moves_a_layer_by_its_share_of_the_learning_rate():
    backbone, width = build_backbone(Backbone("resnet18", width=2))
    classifier = nn.Linear(width, 2)
    optimizer = optimizer_of(layer_groups(backbone, classifier, Optim("sgd", momentum=0.0), layer_decay=0.5), Optim())
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    parameters = {"conv1": backbone.conv1.weight, "block": backbone.layer4[1].conv2.weight, "head": classifier.weight}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for p in (*backbone.parameters(), *classifier.parameters()):
        p.grad = torch.ones_like(p)
    set_learning_rate(optimizer, 0.1, 0.1)
    optimizer.step()
    for name, scale in (("conv1", 0.5**9), ("block", 0.5), ("head", 1.0)):
        torch.testing.assert_close(parameters[name], before[name] - 0.1 * scale)
