"""Loading models by name: runs, exports, random weights and torchvision's."""

import pytest
import torch

from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.encoders import load_encoder


def test_a_run_its_export_and_its_file_are_the_same_encoder(run):
    x = torch.randn(2, 3, 32, 32)
    found = [load_encoder(str(p)) for p in (run, run / "export", run / "export" / "model.safetensors")]
    assert {encoder.name for encoder in found} == {"tiny"}
    assert {encoder.size for encoder in found} == {32}
    outputs = [encoder.module(x) for encoder in found]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[1], outputs[2])
    assert len({encoder.digest for encoder in found}) == 1
    assert load_encoder(str(run), size=48).digest != found[0].digest


def test_random_weights_are_a_runs_initial_ones_or_depend_on_the_seed(run):
    control = load_encoder(f"control@random:{run}")
    assert control.name == "control" and control.size == 32
    assert control.digest == load_encoder(str(run)).digest  # this run was never trained
    first, again, third = (load_encoder("random:resnet18", size=64, seed=s).digest for s in (0, 0, 1))
    assert first == again != third


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "no such file or folder"),
        ("random:resnet19", r"neither a run folder nor an architecture; did you mean random:resnet18\?"),
        ("random:nowhere", "neither a run folder nor an architecture; pass random:RUN, random:resnet18"),
        ("{tmp}", "holds neither a run"),
        ("{tmp}/cut.safetensors", "export it again"),
        ("{run}/config.json", r"not a \.safetensors file but a part of .*tiny: pass that folder"),
        ("{run}/checkpoints/step-000000003.pt", r"not a \.safetensors file but a part of .*tiny: pass that folder"),
        ("{run}/checkpoints", "nor an export .* but a part of .*tiny: pass that folder"),
        ("", "a model is empty; pass a run folder"),
        ("label@", "model label@: nothing follows @; pass a run folder"),
        ("resnet50=", "model resnet50=: nothing follows =; pass"),
        ("timm:", "model timm:: nothing follows :; pass"),
        ("torchvision:resnet18=", "nothing follows =; pass"),
        ("random:", "nothing follows :; pass"),
        ("{tmp}/bare/model.safetensors", r"config\.json is missing: copy the config\.json that `fastaugself export`"),
        ("{tmp}/other/model.safetensors", r"does not describe the model \(it has no 'fastaugself'\): copy"),
    ],
)
def test_an_unknown_or_damaged_model_is_refused(spec, message, run, tmp_path):
    for name in ("bare", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes((run / "export" / "model.safetensors").read_bytes())
    (tmp_path / "other" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "cut.safetensors").write_bytes((run / "export" / "model.safetensors").read_bytes()[:-9])
    with pytest.raises((UsageError, RunError), match=message):
        load_encoder(spec.replace("{tmp}", str(tmp_path)).replace("{run}", str(run)))


def test_a_torchvision_model_gives_its_pooled_features(torchvision, tmp_path):
    torch.manual_seed(3)
    model = torchvision.models.resnet18().eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = load_encoder(f"torchvision:resnet18={tmp_path / 'weights.pth'}", size=64)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.fc(encoder.module(x)), model(x))
    with pytest.raises(UsageError, match="did you mean torchvision:resnet18"):
        load_encoder("torchvision:resnet188")


def test_a_checkpoint_of_any_torchvision_model_is_loaded_completely_or_refused(torchvision, tmp_path):
    model, path = torchvision.models.mobilenet_v3_small().eval(), tmp_path / "weights.pth"
    state = {"module." + name: value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    encoder = load_encoder(f"torchvision:mobilenet_v3_small={path}", size=32)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.classifier(encoder.module(x)), model(x))
    state.pop("module.features.0.0.weight")
    torch.save(state, path)
    with pytest.raises(RunError, match=r"does not fit this backbone: the file lacks features\.0\.0\.weight"):
        load_encoder(f"torchvision:mobilenet_v3_small={path}")
    torch.save({"decoder.weight": torch.ones(2)}, path)
    with pytest.raises(UsageError, match=r"holds no weights of this model; its first names are decoder\.weight"):
        load_encoder(f"torchvision:mobilenet_v3_small={path}")
