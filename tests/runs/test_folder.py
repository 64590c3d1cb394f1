"""Loading config.json from run folders, and the errors for paths that are not run folders."""

import json

import pytest

from fastaugself.config.schema import Pretrain
from fastaugself.config.serialize import to_dict
from fastaugself.errors import UsageError
from fastaugself.runs.folder import configuration, read_config, read_config_file, read_pretrain


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A working folder with runs/demo, runs/mine and an export in one of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "mine"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(to_dict(Pretrain(seed=3))))
    (tmp_path / "runs" / "mine" / "export").mkdir()
    (tmp_path / "runs" / "mine" / "export" / "config.json").write_text('{"architecture": "resnet18"}')
    (tmp_path / "runs" / "empty").mkdir()
    return tmp_path / "runs"


def test_a_run_folder_gives_its_configuration(runs):
    assert read_pretrain(runs / "mine") == Pretrain(seed=3)
    assert (
        read_config_file(runs / "mine") == read_config_file(runs / "mine" / "config.json") == read_config(runs / "mine")
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/such/run", "/no/such/run: no such folder; pass a run folder, which training writes at --run, such as "),
        ("runs/mein", "runs/mein: no such folder; .* such as runs/mine or runs/demo"),
        ("runs", "runs: holds no config.json; .* such as runs/(mine or runs/demo|demo or runs/mine)"),
        ("runs/empty", "runs/empty: holds no config.json; "),
        ("runs/mine/config.json", "runs/mine/config.json: is a file; .* such as runs/mine"),
        ("runs/mine/checkpoints", "runs/mine/checkpoints: holds no config.json; .* such as runs/mine"),
        ("runs/mine/export", "export/config.json describes an export, not a run; .* such as runs/mine"),
    ],
)  # fmt: skip
def test_a_path_that_is_no_run_is_named_with_the_runs_nearby(path, message, runs, tmp_path):
    with pytest.raises(UsageError, match=f"^{message}" if path != "runs/mine/export" else message):
        read_config(type(tmp_path)(path))


@pytest.mark.parametrize("text", ["", "[1]", '{"seed": 1}', '{"method": '], ids=["empty", "list", "other", "cut"])
def test_a_damaged_configuration_is_refused_by_its_option(text, runs):
    path = runs / "mine" / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"^--from {path} (cannot be read|is not that of a run)"):
        read_config_file(path, "--from")


def test_a_configuration_of_another_version_is_refused_with_its_field():
    values = to_dict(Pretrain()) | {"warp": 9}
    with pytest.raises(UsageError, match=r"old\.json does not fit this version .*warp.*; use the version that"):
        configuration(values, "old.json")


def test_a_configuration_may_start_with_a_byte_order_mark(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(to_dict(Pretrain(seed=3))).encode())
    assert configuration(read_config_file(tmp_path / "config.json", "--from"), "--from").seed == 3
    (tmp_path / "config.json").write_bytes(json.dumps(to_dict(Pretrain())).encode("utf-16"))
    with pytest.raises(UsageError, match="UTF-16 text: save it as UTF-8"):
        read_config_file(tmp_path / "config.json", "--from")
