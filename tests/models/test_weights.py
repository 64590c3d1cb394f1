"""Weights of other libraries, model cards and ONNX exports."""

import argparse
import json
from pathlib import PosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastaugself import Augment, AugSelf, Backbone, Data, Log, MoCo, Pretrain, ViewPolicy
from fastaugself.config.serialize import to_dict
from fastaugself.distributed import World
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.encoders import load_encoder
from fastaugself.export.backbone import export_run
from fastaugself.models.build import build_backbone
from fastaugself.models.weights import load_weights, read_weights
from fastaugself.runs import checkpoint
from fastaugself.runs.build import build_learner
from fastaugself.training.trainer import Trainer


@pytest.fixture(scope="module")
def states():
    """Two different ResNet-18 state dicts with torchvision's names and a classifier: (trained, EMA)."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        backbone, width = build_backbone(Backbone(name="resnet18"))
        found.append(backbone.state_dict() | {"fc.weight": torch.randn(10, width), "fc.bias": torch.randn(10)})
    return found


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


# The checkpoint layout of each library.
LAYOUTS = {
    "torchvision": lambda a, b: a,
    "moco": lambda a, b: {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": under("module.encoder_k.", b) | under("module.encoder_q.", a) | {"module.queue": torch.ones(4)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "moco v3": lambda a, b: {
        "state_dict": under("module.momentum_encoder.", b) | under("module.base_encoder.", a),
    },
    "simsiam": lambda a, b: {"state_dict": under("module.encoder.", a) | {"module.predictor.0.weight": torch.ones(2)}},
    "augself": lambda a, b: {"backbone": a, "projector": {"0.weight": torch.ones(2, 2)}, "epoch": 500},
    "augself, parallel": lambda a, b: {"backbone": under("module.", a), "projector": {"0.weight": torch.ones(2)}},
    "lightning": lambda a, b: {"state_dict": under("momentum_backbone.", b) | under("backbone.", a), "global_step": 3},
    "compiled": lambda a, b: {"model": under("_orig_mod.", a)},
    "compiled inside DDP": lambda a, b: {"model_state_dict": under("module._orig_mod.", a), "epoch": 3},
    "lightning's model": lambda a, b: {"state_dict": under("model.", a) | {"loss.weight": torch.ones(4)}},
    "dino": lambda a, b: {
        "teacher": under("backbone.", b) | {"head.mlp.0.weight": torch.ones(2, 2)},
        "student": under("module.backbone.", a) | {"module.head.mlp.0.weight": torch.ones(2, 2)},
        "args": argparse.Namespace(arch="resnet18", lr=0.1, out=PosixPath("/tmp/x")),
        "best": np.float64(71.5),
        "lowest": np.float32(71.5),
    },
    "dino, flat": lambda a, b: under("teacher.backbone.", b) | under("student.backbone.", a),
    "the teacher alone": lambda a, b: under("teacher.backbone.", a),
    "ema beside": lambda a, b: {
        "state_dict_ema": b,
        "state_dict": a,
        "optimizer": {"state": {0: {"exp_avg": b["bn1.bias"]}}},
    },
    "model_ema": lambda a, b: {"model_ema": under("module.", b), "model": under("module.", a)},
    "ema_model first": lambda a, b: under("ema_model.", b) | under("net.", a),
    "ema alone": lambda a, b: {"epoch": 1, "model_ema": {"module": a}},
    "byol": lambda a, b: under("target_encoder.net.", b) | under("online_encoder.net.", a),
    "nested": lambda a, b: {"checkpoint": {"model": {"module": {"encoder": under("_orig_mod.trunk.", a)}}}},
    "numbered": lambda a, b: {0: torch.ones(2), 1: {"net": under("0.", a) | {"1.weight": torch.ones(2, 2)}}},
    "a name of its own": lambda a, b: under("my_lovely_wrapper.body.", a),
    "swa": lambda a, b: {"n_averaged": torch.tensor(3)} | under("module.", a),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_trained_encoder_is_found_in_what_others_save(layout, states, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(LAYOUTS[layout](*states), path)
    expected = {name: value for name, value in states[0].items() if not name.startswith("fc.")}
    for found in (read_weights(path), read_weights(path, expected.keys())):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    backbone, _ = build_backbone(Backbone(name="resnet18"))
    load_weights(backbone, path)
    assert torch.equal(backbone.conv1.weight, states[0]["conv1.weight"])


def test_an_encoder_of_another_library_can_be_evaluated(states, tmp_path):
    torch.save(LAYOUTS["moco"](*states), tmp_path / "moco.pth")
    encoder = load_encoder(f"resnet18={tmp_path / 'moco.pth'}")
    backbone, _ = build_backbone(Backbone(name="resnet18"))
    load_weights(backbone, tmp_path / "moco.pth")
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(encoder.module(x), backbone.eval()(x)) and encoder.name == "moco"


class Evil:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def test_files_that_hold_no_backbone_are_refused_by_name(states, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    with pytest.raises(UsageError, match="is not a file"):
        read_weights(path)
    path.write_bytes(b"PK not really")
    with pytest.raises(RunError, match=r"weights\.pth cannot be read as weights"):
        read_weights(path)
    torch.save({"state_dict": {"decoder.weight": torch.ones(2)}}, path)
    with pytest.raises(UsageError, match=r"no ResNet or ViT; its first names are state_dict\.decoder\.w"):
        read_weights(path)
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(RunError, match="could run code"):
        read_weights(path)
    assert "code from a checkpoint" not in capsys.readouterr().out


class Config:
    """Stands for a class of a training script."""


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("held", "message"),
    [
        (lambda: {"config": Config()}, r"holds objects of .*test_weights\.Config, not only tensors"),
        (lambda: Evil(), r"holds objects of (builtins\.)?print, not only"),
        (lambda: torch.nn.Linear(2, 2), r"holds objects of (__builtin__\.set|torch\.nn\.modules\.linear\.Linear)"),
    ],
)
def test_what_is_in_the_way_is_named_without_advice_to_run_code(held, message, zipped, states, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": states[0], "beside": held()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(RunError, match=message) as refusal:
        read_weights(path)
    said = str(refusal.value)
    assert said.endswith(
        "save the weights alone there, as with torch.save(model.state_dict(), FILE), and pass that file"
    )
    assert "weights_only" not in said and "safe_globals" not in said and "\x1b" not in said and "\n" not in said
    assert not capsys.readouterr().out


@pytest.mark.parametrize("content", [{0: torch.ones(2)}, [torch.ones(2)], torch.ones(2), {}, {"a": {1: 2}}, None, 3])
def test_contents_that_are_no_state_dict_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    for read in (read_weights, lambda path: load_weights(build_backbone(Backbone(name="resnet18"))[0], path)):
        with pytest.raises(UsageError, match=r"holds no (ResNet or ViT|weights of this model); its first names are no"):
            read(tmp_path / "weights.pth")


def test_a_torchscript_program_is_named(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(RunError, match=r"program\.pt is a TorchScript program, which is not read as weights: save"):
        read_weights(tmp_path / "program.pt")


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Backbone(name="resnet18", width=16), r"has shape \[.*64.*\] in the file and \[.*16.*\] here"),
        (Backbone(name="resnet50"), "does not fit this backbone"),
    ],
    ids=["width", "depth"],
)
def test_a_misfit_is_named_and_changes_nothing(backbone, message, states, tmp_path):
    save_file({name: value.contiguous() for name, value in states[0].items()}, tmp_path / "model.safetensors")
    module, _ = build_backbone(backbone)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RunError, match=message):
        load_weights(module, tmp_path / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_run_starts_from_other_weights_in_both_encoders_and_resumes_without_them(states, beton, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(LAYOUTS["moco"](*states), path)
    config = Pretrain(
        data=Data(train=beton, source="native"),
        view=ViewPolicy.moco_v2(32),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name="resnet18"),
        method=MoCo(queue=32, dim=16),
        augself=AugSelf(hidden=32),
        log=Log(tensorboard=False),
        run=tmp_path / "run",
        init=path,
        batch_size=8,
        device="cpu",
    )
    world = World.single()
    trainer = Trainer(config, world)
    try:
        state = trainer.learner.state_dict()
        starts = [value for name, value in state.items() if name.endswith("layer1.0.conv1.weight")]
        assert len(starts) == 2  # the encoder and the key encoder
        assert all(torch.equal(value, states[0]["layer1.0.conv1.weight"]) for value in starts)
        trainer.save()
    finally:
        trainer.close()
    path.unlink()
    Trainer(config, world).close()


def exported_run(folder, *, width=64, size=64):
    """A run folder with a checkpoint at step 0 and records, some of them hostile."""
    config = Pretrain(
        data=Data(train=folder / "my `photos`.beton"),
        view=ViewPolicy.moco_v2(size),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name="resnet18", width=width),
        method=MoCo(queue=256, dim=16),
        augself=AugSelf(hidden=32),
        log=Log(check=(f"other={folder / 'a.beton'}:{folder / 'b.beton'}",)),
        run=folder,
        device="cpu",
    )
    learner = build_learner(config)
    state = {"samples": 1234, "learner": learner.state_dict()}
    checkpoint.save(folder / "checkpoints", 7, state, to_dict(config), keep=1)
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    (folder / "evaluations.jsonl").write_text('{"step": 7, "knn": 0.5, "` <script>": 1, "text": "<b>"}\n')
    return learner.method.backbone.eval()


def test_the_card_tells_what_was_trained_and_nothing_of_the_machine(tmp_path):
    exported_run(tmp_path, width=16)
    export_run(tmp_path)
    card = (tmp_path / "export" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: fastaugself\npipeline_tag: image-feature-extraction\n")
    assert "# resnet18 MoCo + AugSelf\n" in card and "1,234 from `my 'photos'.beton`" in card
    assert "| `knn` | 0.5 |" in card and "| `' <script>` | 1 |" in card and "<b>" not in card
    assert str(tmp_path.parent) not in card and '"other=a.beton:b.beton"' in card
    block = card.split("```python\n")[1].split("```")[0].replace('"model.', f'"{tmp_path}/export/model.')
    scope = {}
    exec(block, scope)
    assert scope["features"].shape == (1, 128)


def test_onnx_gives_the_features_of_the_run(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason='pip install "fastaugself[onnx]"')
    backbone = exported_run(tmp_path, width=8, size=32)
    export_run(tmp_path, onnx=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "export" / "model.onnx"))
    x = torch.randn(5, 3, 32, 32)
    (got,) = session.run(None, {"images": x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(got), backbone(x), rtol=1e-4, atol=1e-4)
    assert not list((tmp_path / "export").glob("*.partial"))
