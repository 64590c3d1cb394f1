"""The GPU round without a GPU: time limits, parts that fail, and the options of its commands."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_round.py"


@pytest.fixture(scope="module")
def round_():
    spec = importlib.util.spec_from_file_location("gpu_round", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_round"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_round"]


def test_the_benchmark_runs_on_a_cpu_and_writes_its_record(beton, tmp_path):
    command = [sys.executable, SCRIPT, beton, "--device", "cpu", "--out", tmp_path / "out", "--only", "augment", "tune"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads((tmp_path / "out" / "augment.json").read_text())
    assert {"fastaugself-numba", "pil"} <= {row["name"] for row in record["rows"]}
    states = {
        part["name"]: part["state"] for part in json.loads((tmp_path / "out" / "round.json").read_text())["parts"]
    }
    assert states == {"tune": "skipped", "augment": "done"}


def test_the_parts_have_less_than_eight_minutes(round_, tmp_path):
    names = ["tests", "tune", "augment", "training", "step", "e2e", "scale", "tables"]
    for gpus in (0, 1, 8):
        planned = round_.parts(tmp_path / "x.beton", tmp_path, tmp_path / "run", gpus)
        assert [part.name for part in planned] == names
        assert all(part.seconds > 0 or part.skipped for part in planned)
        assert bool(planned[6].skipped) == (gpus < 2)
    assert round_.TOTAL < 480


@pytest.mark.parametrize("gpus", [0, 2])
def test_every_option_of_every_part_exists(round_, gpus, tmp_path, capsys):
    from fastaugself.cli.main import main as cli

    for part in round_.parts(tmp_path / "x.beton", tmp_path, tmp_path / "run", gpus):
        words = [str(word) for word in part.command]
        if words[:3] == ["-m", "fastaugself", "bench"]:
            with pytest.raises(SystemExit):
                cli(["bench", words[3], "--help"])
        elif words and words[0].startswith("recipes/"):
            subprocess.run([sys.executable, ROOT / words[0], "--help"], capture_output=True, check=True)
            continue
        else:
            continue
        helped = capsys.readouterr().out
        assert [word for word in words if word.startswith("--") and word not in helped] == []


def test_a_part_over_its_time_limit_is_terminated_with_its_children(round_, tmp_path):
    sentinel = tmp_path / "alive"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, {str(sentinel)!r}])"
    began = time.monotonic()
    outcome = round_.execute(round_.Part("slow", 1.0, ("-c", code)), sys.executable, tmp_path, 100.0)
    assert outcome["state"] == "failed" and outcome["reason"] == "terminated after 1 s"
    assert time.monotonic() - began < 8
    seen = sentinel.read_text() if sentinel.exists() else ""
    time.sleep(0.3)
    assert (sentinel.read_text() if sentinel.exists() else "") == seen


CHILD = """
import sys, time
for i in range(200):
    open(sys.argv[1], "w").write(str(i))
    time.sleep(0.05)
"""


def test_the_other_parts_run_after_a_failure_and_the_exit_status_is_1(round_, tmp_path, monkeypatch, capsys):
    planned = [
        round_.Part("bad", 9, ("-c", "raise SystemExit(3)")),
        round_.Part("good", 9, ("-c", "import os; print('fine', os.environ['TRITON_CACHE_DIR'], sep='\\n')")),
        round_.Part("none", 0, skipped="not there"),
    ]
    monkeypatch.setattr(round_, "parts", lambda *_: planned)
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    photos = tmp_path / "x.beton"
    photos.touch()
    out = tmp_path / "out"
    arguments = [str(photos), "--device", "cpu", "--out", str(out)]
    assert round_.main(arguments) == 1
    states = {part["name"]: part for part in json.loads((out / "round.json").read_text())["parts"]}
    assert states["bad"]["reason"] == "exit status 3" and states["good"]["state"] == "done"
    assert states["none"] == {"name": "none", "state": "skipped", "reason": "not there"}
    assert (out / "good.log").read_text().splitlines() == ["fine", str(round_.CACHE / "triton")]
    assert round_.main([*arguments, "--only", "good", "none"]) == 0
    monkeypatch.setattr(round_, "TOTAL", 0)
    assert round_.main([*arguments, "--only", "good"]) == 1  # no time left
    capsys.readouterr()
    with pytest.raises(SystemExit):
        round_.main([*arguments, "--only", "nothing"])
    assert "--only takes bad, good, none, got nothing" in capsys.readouterr().err


def test_missing_photos_are_named_with_the_instructions(round_, tmp_path, capsys):
    with pytest.raises(SystemExit):
        round_.main([str(tmp_path / "none.beton")])
    assert "none.beton; the head of scripts/gpu_round.py" in capsys.readouterr().err
