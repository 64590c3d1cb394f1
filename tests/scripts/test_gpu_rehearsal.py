"""The rehearsal of the GPU round on a CPU, and the faults that it finds."""

import dataclasses
import json
import subprocess
import sys

import pytest
from gpu_rounds import NAMES, SCRIPT, a_round, folders, go, say, verdicts

import gpu_parts
import gpu_rehearsal
from gpu_parts import Part


def test_a_command_that_a_gpu_would_refuse_fails_the_rehearsal(tmp_path, monkeypatch):
    """Options, values and files in commands that no CPU runs; each fault is told."""
    at = folders(tmp_path)
    wrong = {
        "tests": ("tests/gone.py", "there is no tests/gone.py"),
        "tune": ("--secs", "unrecognized arguments: --secs"),
        "e2e": ("--stepz", "--stepz"),
        "training": ("--batch-size=1", "--batch-size must be at least 2"),
        "head": ("--precision=int8", "invalid choice: 'int8'"),
    }
    changed = [
        dataclasses.replace(part, command=(*part.command, wrong[part.name][0]))
        for part in gpu_parts.parts(gpu_rehearsal.a_machine(1), at)
        if part.name in wrong
    ]
    monkeypatch.setattr(gpu_rehearsal, "parts", lambda machine, at: changed)
    monkeypatch.setattr(gpu_rehearsal, "HEAD", "print('[]')")
    found = gpu_rehearsal.command_faults(at, sys.executable)
    assert len(found) == len(wrong)
    for part, fault in zip(changed, found, strict=True):
        assert wrong[part.name][1] in fault, fault


def test_budgets_that_do_not_add_up_fail_the_rehearsal(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_rehearsal, "parts", lambda machine, at: [Part(name, 400, say("")) for name in "abcd"])
    (fault,) = gpu_rehearsal.plan_faults(folders(tmp_path))
    assert fault.startswith("the budgets need 4 calls of 540 s, more than 3")
    monkeypatch.setattr(gpu_rehearsal, "parts", lambda machine, at: [Part("a", 530, say(""))])
    assert gpu_rehearsal.plan_faults(folders(tmp_path)) == ["the budget of a exceeds a call of 540 s"] * 2


def test_a_rehearsal_leaves_nothing_out(tmp_path):
    part = gpu_rehearsal.rehearsed(Part("head", 9, say(""), skipped="needs timm"))
    assert go(a_round(tmp_path, part)) == 1
    assert verdicts(tmp_path)["head"]["reason"] == "exit status 1: needs timm"


@pytest.mark.slow
def test_a_round_is_rehearsed_on_a_cpu(tmp_path, timm):
    """Without the training benchmarks, whose small forms tests/bench runs; their commands are parsed here too."""
    pytest.importorskip("triton")
    out = tmp_path / "results" / "rehearsal"
    wanted = [name for name in NAMES if name not in ("step", "e2e", "cudnn", "scale")]
    command = [sys.executable, SCRIPT, "--rehearse", "--out", out, "--parts", *wanted]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((out / "round.json").read_text())
    assert {part["name"]: part["state"] for part in found["parts"]} == dict.fromkeys(wanted, "done")
    figures = {part["name"]: part["figures"] for part in found["parts"]}
    assert "fastaugself-numba" in figures["augment"]["views_per_s"]
    assert [*figures["head"]["samples_per_s"]] == ["fastaugself, fp32"] and not figures["head"]["ratios"]
    assert "## bench augment" in (out / "README.md").read_text()
