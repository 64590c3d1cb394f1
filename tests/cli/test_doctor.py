"""`fastaugself doctor`: its findings on this machine, and a remedy for each fault."""

import dataclasses
import json

import pytest
import torch

from fastaugself import Data, Optim, Pretrain, SimSiam
from fastaugself.cli import doctor
from fastaugself.cli.main import main
from fastaugself.config.serialize import to_dict


def run(checks, config, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", checks)
    return doctor.diagnose(config)


def test_it_prints_the_back_end_of_each_part(tmp_path, capsys, monkeypatch):
    quick = [check for check in doctor.CHECKS if check.__name__ != "check_reader"]  # compiles FFCV's decoder
    monkeypatch.setattr(doctor, "CHECKS", quick)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(Pretrain(run=tmp_path))))
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json", "--config", str(path)])
    findings = {finding["part"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert f"torch {torch.__version__}" in findings["packages"]["found"]
    backend = "triton" if torch.cuda.is_available() else "numba"
    augmentation = findings["augmentation"]["found"]
    assert augmentation.startswith(backend) and augmentation.endswith("of the reference")
    assert end.value.code == any(finding["state"] == "fault" for finding in findings.values())
    assert {"memory", "disk", "threads", "apex", "torch.compile"} <= findings.keys()


def test_the_bytes_of_a_run_include_momentum_encoder_queue_and_optimizer():
    """MoCo on ResNet-50: query and momentum encoder, projectors, queue in float32, and SGD momentum."""
    counted = doctor.training_bytes(Pretrain())
    encoder, projector, queue = 23_508_032, 2048 * 2048 + 2048 + 2048 * 128 + 128, 65536 * 128
    least = 4 * (3 * (encoder + projector)) + 2 * queue
    assert least < counted < 1.5 * least


def test_wrong_augmentation_is_a_fault(monkeypatch):
    from fastaugself_kernels import reference

    monkeypatch.setattr(reference, "solarize", lambda x, threshold: x)
    right = reference.gaussian_blur
    monkeypatch.setattr(reference, "gaussian_blur", lambda x, sigma, kernel: right(x, sigma, kernel) + 0.01)
    (finding,) = run([doctor.check_augmentation], Pretrain(), monkeypatch)
    assert finding.state == "fault" and "differs from the reference" in finding.found and finding.remedy


@pytest.mark.parametrize(
    ("check", "config", "words"),
    [
        (doctor.check_optimizer, Pretrain(optim=Optim(implementation="apex")), "NVIDIA"),
        (doctor.check_memory, Pretrain(method=SimSiam(), batch_size=10**7), "without activations"),
        (doctor.check_device, Pretrain(device="cuda"), "asks for --device cuda"),
    ],
    ids=["apex", "memory", "device"],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="faults of a machine without a GPU")
def test_a_fault_is_named_with_its_remedy(check, config, words, monkeypatch):
    findings = run([check], config, monkeypatch)
    (fault,) = [finding for finding in findings if finding.state == "fault"]
    assert words in fault.found
    assert doctor.report(findings).endswith("1 fault")


def test_a_check_that_raises_is_a_fault_and_the_others_continue(monkeypatch):
    def broken(config):
        raise OSError("no such thing")

    findings = run([broken, doctor.check_system], Pretrain(), monkeypatch)
    assert findings[0] == doctor.Finding("broken", "fault", "the check itself failed: OSError: no such thing")
    assert [finding.part for finding in findings[1:]] == ["python", "system"]


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    fault = run([doctor.check_disk], Pretrain(run=tmp_path / "runs" / "mine"), monkeypatch)[0]
    assert fault.state == "fault" and f"{tmp_path} cannot be written to" in fault.found


def test_photos_that_do_not_fit_in_memory_are_noted(tmp_path, monkeypatch):
    photos = tmp_path / "train.beton"
    with photos.open("wb") as file:
        file.truncate(1 << 42)  # sparse
    config = dataclasses.replace(Pretrain(), data=Data(train=photos))
    assert any("quasi-random" in finding.remedy for finding in run([doctor.check_memory], config, monkeypatch))


def test_another_file_is_no_configuration(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text("[]")
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--config", str(path)])
    assert end.value.code == 2 and "is not that of a run" in capsys.readouterr().err


def test_a_package_that_cannot_be_imported_is_a_fault(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("raise OSError('libsomething.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        doctor, "PACKAGES", {"numpy": "numpy", "rich": "broken_package", "nothing-of-this-name": "nothing"}
    )
    fault, found = run([doctor.check_packages], Pretrain(), monkeypatch)[:2]
    assert fault.state == "fault" and "rich 1" in fault.found and "libsomething.so" in fault.found
    assert fault.remedy == "pip install --force-reinstall --no-deps rich"
    assert found.state == "ok" and "numpy 2" in found.found and "no nothing-of-this-name" in found.found
    assert "rich" not in found.found


def test_a_torchvision_that_does_not_fit_is_said(monkeypatch, torchvision):
    found = run([doctor.check_packages], Pretrain(), monkeypatch)
    notes = [finding for finding in found if finding.state == "note"]
    assert len(notes) == doctor.without_operators()
    assert all("`import torchvision` and `import timm` fail" in note.found and note.remedy for note in notes)
