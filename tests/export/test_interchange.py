"""Exports loaded by timm and torchvision, timm models as backbones, and uploads to the Hugging Face Hub."""

import inspect
import json
import re
import sys

import pytest
import torch

from fastaugself import Augment, AugSelf, Backbone, Data, Log, MoCo, Pretrain, ViewPolicy
from fastaugself.config.serialize import to_dict
from fastaugself.distributed import World
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.export.backbone import export_backbone, export_run
from fastaugself.export.card import loading
from fastaugself.methods.mocov3 import MoCoV3
from fastaugself.models.build import build_backbone
from fastaugself.runs import checkpoint
from fastaugself.runs.build import build_learner
from fastaugself.training.trainer import Trainer


def exported(folder, name, size, **options):
    """Exports an untrained run in `folder`: (path of the weights, configuration, backbone)."""
    config = Pretrain(
        view=ViewPolicy.moco_v2(size),
        backbone=Backbone(name=name, **options),
        method=MoCo(queue=256, dim=16),
        augself=AugSelf(hidden=16),
        run=folder,
    )
    learner = build_learner(config)
    for module in learner.method.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # buffers must be exported too
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    weights = export_backbone(learner, config, folder / "export", step=0)
    return weights, config, learner.method.backbone.eval()


def features(model, size):
    if hasattr(model, "fc"):  # torchvision's classifier, which is not exported
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


@pytest.mark.parametrize("options", [{"width": 16}, {"stem": "small"}], ids=["narrow", "small stem"])
def test_timm_says_why_it_cannot_load_an_export_and_what_can(options, timm, tmp_path):
    weights, _, backbone = exported(tmp_path, "resnet18", 32, **options)
    with pytest.raises(RuntimeError) as refused:
        timm.create_model(f"local-dir:{weights.parent}", pretrained=True)
    said = str(refused.value)
    words = ("resnet18", *map(str, options.values()), "timm does not have", "from fastaugself import load_encoder")
    assert all(word in said for word in words)
    encoder = load_encoder(weights.parent)  # as the message says
    torch.testing.assert_close(features(encoder.module, 32), features(backbone, 32))


def test_timm_loads_the_file_into_its_own_resnet(timm, tmp_path):
    weights, _, backbone = exported(tmp_path, "resnet18", 64)
    model = timm.create_model("resnet18", pretrained=True, pretrained_cfg_overlay={"file": str(weights)}, num_classes=0)
    torch.testing.assert_close(features(model, 64), features(backbone, 64))


def test_a_timm_vit_trains_with_a_frozen_patch_embedding(beton, timm, tmp_path):
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
    trainer = Trainer(config, World.single())
    before = {name: value.clone() for name, value in trainer.learner.method.backbone.state_dict().items()}
    trainer.fit()
    trainer.close()
    after = trainer.learner.method.backbone.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "blocks" in changed and "pos_embed" in changed and "patch_embed" not in changed


def test_a_timm_model_is_evaluated_with_the_weights_of_a_file(timm, tmp_path):
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


# --- the Hub ----------------------------------------------------------------------------------------------------------


class FakeApi:
    """A fake of the Hub's client that records its calls and reads the uploaded files."""

    def __init__(self, real):
        self.calls, self.error, self.real = [], None, real

    def create_repo(self, name, *, private, exist_ok):
        inspect.signature(self.real.create_repo).bind(self, name, private=private, exist_ok=exist_ok)
        assert private and exist_ok
        self.calls.append(name)
        return f"https://hub.example/{name}"

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        inspect.signature(self.real.upload_folder).bind(
            self,
            repo_id=repo_id,
            folder_path=folder_path,
            allow_patterns=allow_patterns,
            commit_message=commit_message,
        )
        if self.error:
            raise self.error
        assert not list(folder_path.glob("*.partial"))
        self.calls.append((repo_id, {name: (folder_path / name).read_bytes() for name in allow_patterns}))


@pytest.fixture
def hub(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason='pip install "fastaugself[hub]"')
    api = FakeApi(huggingface_hub.HfApi)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return api


@pytest.fixture
def finished(tmp_path):
    """A run folder with a checkpoint, and an unrelated file in its export folder."""
    config = Pretrain(
        view=ViewPolicy.moco_v2(32),
        backbone=Backbone(name="resnet18", width=8),
        method=MoCo(queue=256, dim=16),
        augself=AugSelf(hidden=16),
        run=tmp_path / "run",
    )
    state = {"samples": 9, "learner": build_learner(config).state_dict()}
    checkpoint.save(config.run / "checkpoints", 3, state, to_dict(config), keep=1)
    (config.run / "config.json").write_text(json.dumps(to_dict(config)))
    (config.run / "export").mkdir()
    (config.run / "export" / "private.txt").write_text("not to be published")
    return config.run


def test_only_the_files_of_the_export_are_uploaded(hub, finished):
    weights = export_run(finished, push="somebody/some-encoder")
    name, (repository, files) = hub.calls
    assert name == repository == "somebody/some-encoder"
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    assert files["model.safetensors"] == weights.read_bytes() and files["README.md"].startswith(b"---\nlibrary_name: ")


def test_a_damaged_export_is_not_uploaded(hub, finished, monkeypatch):
    from fastaugself.export import backbone as export

    def damaged(path, content):
        path.write_bytes(content[:-4] + b"\x01\x02\x03\x04" if path.suffix == ".safetensors" else content)

    monkeypatch.setattr(export, "replace_file", damaged)
    with pytest.raises(RunError, match="differs from the weights that were written to it"):
        export_run(finished, push="somebody/some-encoder")
    assert hub.calls == []


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("encoder", "token", "must be USER/NAME or ORGANISATION/NAME, got encoder"),
        ("a/b/c", "token", "got a/b/c"),
        ("somebody/an encoder", "token", "not a valid repository name"),
        ("somebody/encoder", None, "hf auth login"),
    ],
)
def test_an_impossible_upload_is_refused_before_the_export(name, token, message, hub, finished, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    with pytest.raises(UsageError, match=message):
        export_run(finished, push=name)
    assert hub.calls == [] and [path.name for path in (finished / "export").iterdir()] == ["private.txt"]


def test_without_the_hubs_package_the_message_names_it(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"pip install \"fastaugself\[hub\]\""):
        export_run(finished, push="somebody/encoder")


def test_a_failed_upload_is_reported_in_one_line_and_keeps_the_export(hub, finished):
    hub.error = ConnectionError("cannot reach the Hub\nand many lines more")
    with pytest.raises(RunError, match="ConnectionError: cannot reach the Hub\\); the export is complete in") as caught:
        export_run(finished, push="somebody/encoder")
    assert "many lines" not in str(caught.value) and (finished / "export" / "model.safetensors").exists()
