"""Launch shapes by device and version of Triton: which file is used, and what is said about it."""

import importlib.util
import json
import logging

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton: pip install triton")

H200 = "NVIDIA H200"


@pytest.fixture
def configs(tmp_path, monkeypatch):
    from fastaugself_kernels.triton import configs

    monkeypatch.setattr(configs, "FOLDER", tmp_path)
    configs.chosen.cache_clear(), configs.config.cache_clear()
    yield configs
    configs.chosen.cache_clear(), configs.config.cache_clear()


def measured(folder, name, rows=32):
    """A file as `tune` writes it, recognisable by the rows of its resize tile."""
    tile = {"rows": rows, "columns": 32, "warps": 4}
    content = {
        "targets": ["sm_90"],
        "ptx": True,
        "resize": tile,
        "finish": tile,
        "finish_float32": tile,
        "float32_products": "tf32x3",
        "small": [],
        "small_float32": [],
        "params_block": 128,
        "params_warps": 4,
    }
    (folder / name).write_text(json.dumps(content))


def test_the_file_of_the_device_and_the_version_is_used_without_a_note(configs, tmp_path):
    measured(tmp_path, "nvidia-h200.triton-3.6.0.json")
    for version in ("3.6.0", "3.6.0+git1234", "3.6"):
        found = configs.choose(H200, version, tmp_path / "default-cuda.json")
        assert found == configs.Chosen(tmp_path / "nvidia-h200.triton-3.6.0.json")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.6.5", "3.6.0"),  # a patch number is nearer than a minor one
        ("3.7.0", "3.7.1"),
        ("3.5.9", "3.6.0"),
        ("3.8.0", "3.7.1"),
        ("4.0.0", "4.2.0"),  # the same major number
        ("3.6.1", "3.6.2"),  # as near as 3.6.0, and newer
        ("2.1.0", "3.6.0"),  # minor numbers 6 and 7 are farther from 1, in this order
    ],
)
def test_of_other_versions_the_nearest_is_used_with_a_note(configs, tmp_path, version, expected):
    there = ["3.7.1", "3.6.0", "4.2.0"] + ["3.6.2"] * (version == "3.6.1")
    for name in there:
        measured(tmp_path, f"nvidia-h200.triton-{name}.json")
    measured(tmp_path, f"nvidia-h200-nvl.triton-{version}.json")  # another device
    found = configs.choose(H200, version, tmp_path / "default-cuda.json")
    assert found.path.name == f"nvidia-h200.triton-{expected}.json"
    assert f"measured with Triton {expected}, and this is {version}" in found.note


def test_a_device_without_a_file_has_the_default_with_a_note(configs, tmp_path):
    measured(tmp_path, "nvidia-h200-nvl.triton-3.6.0.json")
    found = configs.choose(H200, "3.6.0", tmp_path / "default-cuda.json")
    assert found.path == tmp_path / "default-cuda.json"
    assert found.note == "no launch shapes were measured on NVIDIA H200, default-cuda is used"


def test_a_text_that_is_no_version_is_refused(configs):
    with pytest.raises(ValueError, match=r"'main' is no version of Triton, which begins with a number such as 3\.6\.0"):
        configs.nearest(["3.6.0"], "main")


def test_names_of_devices_become_names_of_files(configs, tmp_path):
    for name, expected in (
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("AMD Instinct MI300X / OAM", "amd-instinct-mi300x-oam"),
    ):
        assert configs.file_of(name, "3.6.0+cu130") == tmp_path / f"{expected}.triton-3.6.0.json"


def test_what_tune_writes_is_what_a_launch_reads_and_another_version_is_told_once(
    configs, tmp_path, monkeypatch, caplog
):
    """From the command to the launch, with a stand-in for the device's name and Triton's interpreter for its clock."""
    import triton

    from fastaugself.environment import environment
    from fastaugself_kernels import tune

    measured(tmp_path, "default-cuda.json")
    start = configs.config(torch.device("cpu"))
    best, seen = tune.search(start, lambda launch: float(launch.constants["RB"]), torch.device("meta"))
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    path = tune.write(best, seen, H200, "sm_90", tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: H200)
    device = torch.device("cuda", 0)
    with caplog.at_level(logging.INFO):
        assert configs.chosen(device) == configs.Chosen(path) and not caplog.records
        assert configs.config(device).resize == best.resize
    configs.chosen.cache_clear()
    monkeypatch.setattr(triton, "__version__", "3.7.1")
    with caplog.at_level(logging.INFO):
        assert configs.chosen(device).path == configs.chosen(device).path == path
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{configs.chosen(device).note}; {configs.REMEDY}"
    record = environment(device)["launch_shapes"]
    assert record == {
        "file": path.name,
        "note": f"the launch shapes of {H200} were measured with Triton 3.6.0, and this is 3.7.1",
    }


@pytest.mark.parametrize(
    ("interpret", "arguments", "message"),
    [
        ("", ["--out", "."], "--device cpu runs in Triton's interpreter: set TRITON_INTERPRET=1"),
        ("1", [], "--device cpu measures no device; pass --out"),
    ],
)
def test_the_interpreter_is_no_device_to_be_measured(monkeypatch, capsys, interpret, arguments, message):
    from fastaugself_kernels import tune

    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    with pytest.raises(SystemExit):
        tune.main(["--device", "cpu", *arguments])
    assert message in capsys.readouterr().err
