"""Exports in the libraries they are named after, timm and torchvision; and timm's models as backbones."""

import re

import pytest
import torch

from fastaugself import Augment, AugSelf, Backbone, Data, Log, MoCo, Pretrain, ViewPolicy
from fastaugself.card import loading
from fastaugself.errors import UsageError
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.export import export_backbone
from fastaugself.methods.build import build_learner
from fastaugself.methods.mocov3 import MoCoV3
from fastaugself.models.build import build_backbone
from fastaugself.training.distributed import World
from fastaugself.training.trainer import Trainer


def exported(folder, name, size, **options):
    """The weights of an untrained run in `folder`, its configuration, and its backbone."""
    config = Pretrain(
        view=ViewPolicy.moco_v2(size),
        backbone=Backbone(name=name, **options),
        method=MoCo(queue=256, dim=16),
        augself=AugSelf(hidden=16),
        run=folder,
    )
    learner = build_learner(config)
    for module in learner.method.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # buffers, too, must arrive
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    weights = export_backbone(learner, config, folder / "export", step=0)
    return weights, config, learner.method.backbone.eval()


def features(model, size):
    if hasattr(model, "fc"):  # torchvision's classifier, which no export holds
        model.fc = torch.nn.Identity()
    with torch.no_grad():
        return model.eval()(torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("libraries", "name", "size", "options"),
    [
        (("fastaugself",), "resnet18", 24, {"width": 8, "stem": "small"}),
        (("timm", "torchvision"), "resnet18", 64, {}),
        (("timm", "torchvision"), "resnet50", 32, {"zero_init_residual": True}),
        (("timm",), "timm:resnet10t", 64, {}),
        (("timm",), "timm:vit_tiny_patch16_224", 48, {}),  # its position embedding has the size of the views
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_lines_that_load_an_export_give_the_features_of_the_run(libraries, name, size, options, timm, tmp_path):
    weights, config, backbone = exported(tmp_path, name, size, **options)
    expected = features(backbone, size)
    blocks = re.split(r"\n\n(?=import)", loading(config, weights))
    assert tuple(re.search(r"import (timm|torchvision)|$", block)[1] or "fastaugself" for block in blocks) == libraries
    for block in blocks:
        scope = {}
        exec(block, scope)
        torch.testing.assert_close(features(scope["model"], size), expected)
    encoder = load_encoder(str(tmp_path / "export"))  # evaluation reads the same folder
    torch.testing.assert_close(features(encoder.module, size), expected)


def test_timm_loads_the_file_into_its_own_resnet(timm, tmp_path):
    weights, _, backbone = exported(tmp_path, "resnet18", 64)
    model = timm.create_model("resnet18", pretrained=True, pretrained_cfg_overlay={"file": str(weights)}, num_classes=0)
    torch.testing.assert_close(features(model, 64), features(backbone, 64))


def test_a_transformer_of_timm_trains_with_its_patches_embedded_as_at_the_start(beton, timm, tmp_path):
    config = Pretrain(
        data=Data(train=beton, source="native", workers=1),
        view=ViewPolicy.moco_v2(32),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name="timm:vit_tiny_patch16_224", freeze_patch_embed=True),
        method=MoCoV3(hidden=32, dim=16),
        augself=AugSelf(hidden=16),
        log=Log(every=1, tensorboard=False),
        run=tmp_path,
        epochs=1,
        batch_size=16,
        max_steps=2,
    )
    trainer = Trainer(config, World(0, 1, torch.device("cpu")))
    before = {name: value.clone() for name, value in trainer.learner.method.backbone.state_dict().items()}
    trainer.fit()
    trainer.close()
    after = trainer.learner.method.backbone.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "blocks" in changed and "pos_embed" in changed and "patch_embed" not in changed


def test_a_model_of_timm_is_evaluated_with_weights_of_a_file(timm, tmp_path):
    model = timm.create_model("resnet10t", num_classes=5)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = load_encoder(f"timm:resnet10t={tmp_path / 'weights.pth'}", size=64)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(encoder.module(x), expected)
    with pytest.raises(UsageError, match="did you mean timm:resnet10t"):
        load_encoder("timm:resnet10tt")
    with pytest.raises(UsageError, match="did you mean timm:vit_tiny_patch16_224"):
        build_backbone(Backbone(name="timm:vit_tiny_patch16_22"))
