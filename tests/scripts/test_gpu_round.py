"""The GPU round without a GPU: budgets, calls, and verdicts that survive a kill."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_rounds import NAMES, SCRIPT, a_round, folders, go, say, verdicts

import gpu_parts
import gpu_rehearsal
import gpu_round
from gpu_parts import Machine, Part

# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_every_part_fits_into_a_call_and_all_of_one_gpu_into_three(tmp_path, gpus):
    planned = gpu_parts.parts(dataclasses.replace(gpu_rehearsal.a_machine(gpus), gpus=gpus), folders(tmp_path))
    assert [part.name for part in planned] == NAMES
    usable = gpu_round.LIMIT - gpu_round.RESERVE
    assert all(0 < part.seconds <= usable for part in planned)
    assert [part.name for part in planned if part.skipped] == ["scale"] * (gpus == 1) + ["tables"]  # not in results/
    needed = gpu_parts.calls(planned, usable)
    assert [name for call in needed for name in call] == [part.name for part in planned if not part.skipped]
    budgets = {part.name: part.seconds for part in planned}
    assert all(sum(budgets[name] for name in call) <= usable for call in needed)
    if gpus == 1:
        assert len(needed) == 3 and sum(part.seconds for part in planned if not part.skipped) <= 1500
    assert gpu_round.LIMIT < 9 * 60 + 1


def test_a_package_that_is_missing_leaves_out_what_needs_it(tmp_path):
    bare = {part.name: part for part in gpu_parts.parts(Machine("GPU", 1, 4), folders(tmp_path))}
    assert bare["head"].skipped == "needs timm: pip install --no-deps timm torchvision"
    assert "-n" not in bare["tests"].command
    full = {part.name: part for part in gpu_parts.parts(gpu_rehearsal.a_machine(1), folders(tmp_path))}
    assert not full["head"].skipped and full["tests"].command[-2:] == ("-n", 8)


def test_the_plan_is_printed_without_a_gpu(capsys):
    assert gpu_round.main(["--plan"]) == 0
    assert "in 3 calls of 540 s: compile tests tune" in capsys.readouterr().out


# --- calls and verdicts -----------------------------------------------------------------------------------------------


def test_a_call_ends_before_its_limit_and_the_next_goes_on(tmp_path, capsys):
    slow = ("-c", "import time; time.sleep(0.6)")
    planned = [Part("one", 9, slow), Part("two", 9, say("2")), Part("none", 9, skipped="not there")]
    assert go(a_round(tmp_path, *planned), seconds=9.5) == gpu_round.LEFT
    assert "left for the next call: two, none; run the same command again" in capsys.readouterr().out
    assert verdicts(tmp_path).keys() == {"one"}
    assert go(a_round(tmp_path, *planned)) == 0
    assert "before: one       done" in capsys.readouterr().out
    found = verdicts(tmp_path)
    assert found["two"]["state"] == "done"
    assert found["none"] == {"name": "none", "state": "skipped", "reason": "not there"}
    first = found["one"]
    assert go(a_round(tmp_path, *planned)) == 0 and verdicts(tmp_path)["one"] == first  # nothing is left


def test_the_other_parts_run_after_a_failure_and_only_named_parts_run_again(tmp_path, capsys):
    sentinel = tmp_path / "mended"
    bad = Part("bad", 9, ("-c", f"import os; raise SystemExit(0 if os.path.exists({str(sentinel)!r}) else 'broken')"))
    planned = [bad, Part("good", 9, ("-c", "import os; print(os.environ['TRITON_CACHE_DIR'], os.environ['WORD'])"))]
    planned[1] = dataclasses.replace(planned[1], environment={"WORD": "here"})
    assert go(a_round(tmp_path, *planned)) == 1
    assert verdicts(tmp_path)["bad"]["reason"] == "exit status 1: broken"
    log = (tmp_path / "out" / "good.log").read_text().split()
    assert log == [os.environ.get("TRITON_CACHE_DIR", str(gpu_round.CACHE / "triton")), "here"]
    sentinel.touch()
    assert go(a_round(tmp_path, *planned)) == 1  # a failure is a verdict too
    assert go(a_round(tmp_path, *planned), "bad") == 0 and verdicts(tmp_path)["bad"]["state"] == "done"
    sentinel.unlink()
    assert go(a_round(tmp_path, *planned), fresh=True) == 1
    capsys.readouterr()
    with pytest.raises(SystemExit):
        go(a_round(tmp_path, *planned), "nothing")
    assert "--parts takes bad, good, got nothing" in capsys.readouterr().err


def test_a_limit_that_no_call_could_keep_is_refused_with_one_that_works(tmp_path, capsys):
    planned = [Part("short", 5, say("")), Part("long", 300, say(""))]
    with pytest.raises(SystemExit):
        go(a_round(tmp_path, *planned), seconds=100)
    assert "too short for the long part: pass --limit 330 or more, or --parts short" in capsys.readouterr().err
    assert not (tmp_path / "out" / "round.json").exists()
    assert go(a_round(tmp_path, *planned), seconds=330 - gpu_round.RESERVE) == 0


def test_a_part_over_its_budget_is_terminated_with_its_children(tmp_path):
    sentinel = tmp_path / "alive"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, {str(sentinel)!r}])"
    began = time.monotonic()
    verdict = gpu_round.execute(Part("slow", 1.0, ("-c", code)), sys.executable, tmp_path)
    assert verdict == {"state": "failed", "reason": "terminated after its budget of 1 s"}
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

DRIVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gpu_round
from gpu_parts import Part
out = Path(sys.argv[2])
slow = "import time; print('begun', flush=True); time.sleep(50)"
planned = [Part("one", 9, ("-c", "")), Part("two", 60, ("-c", slow))]
r = gpu_round.Round(planned, out, "GPU", sys.executable)
sys.exit(gpu_round.go(r, gpu_round.make_parser(), [], time.monotonic() + 100))
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_the_verdicts_before_a_kill_are_kept_and_the_part_that_ran_is_run_again(tmp_path, kind, capsys):
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(SCRIPT.parent), str(out)], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not (out / "two.log").exists() or "begun" not in (out / "two.log").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    assert {name: v["state"] for name, v in verdicts(tmp_path).items()} == {"one": "done", "two": "running"}
    process.send_signal(kind)
    printed = process.communicate(timeout=20)[0].decode()
    if kind == signal.SIGTERM:
        assert process.returncode == gpu_round.LEFT and "the round was ended by SIGTERM; round.json has" in printed
        assert verdicts(tmp_path)["two"]["state"] == "cut off"
        assert not left_behind("time.sleep(50)")
    else:
        for pid in left_behind("time.sleep(50)"):  # nothing can end the part of a round that was killed
            os.kill(pid, signal.SIGKILL)
    mended = a_round(tmp_path, Part("one", 9, say("", 1)), Part("two", 9, say("")))
    assert [part.name for part in mended.missing()] == ["two"]
    assert go(mended) == 0 and verdicts(tmp_path)["two"]["state"] == "done"


def left_behind(text):
    """Process ids of the Python processes with this text in their command, of this test's interpreter."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:1] == [sys.executable.encode()] and any(word.endswith(text.encode()) for word in words):
            found.append(int(entry.parent.name))
    return found


def test_verdicts_of_another_device_do_not_count(tmp_path):
    part = Part("one", 9, say(""))
    assert go(a_round(tmp_path, part)) == 0
    assert a_round(tmp_path, part).missing() == []
    assert a_round(tmp_path, part, device="another GPU").missing() == [part]


def test_kernels_are_compiled_again_where_triton_has_an_empty_cache(tmp_path, monkeypatch):
    """As on a fresh machine to which the results of earlier calls were copied."""
    cache = tmp_path / "triton"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    planned = [Part("compile", 9, ("-c", f"import os; os.makedirs({str(cache / 'code')!r})")), Part("step", 9, say(""))]
    assert go(a_round(tmp_path, *planned), "compile") == 0
    assert [part.name for part in a_round(tmp_path, *planned).missing()] == ["step"]
    (cache / "code").rmdir()
    assert [part.name for part in a_round(tmp_path, *planned).missing()] == ["compile", "step"]
    assert go(a_round(tmp_path, *planned)) == 0
    (cache / "code").rmdir()
    assert a_round(tmp_path, *planned).missing() == []  # nothing that would need it


def test_files_are_kept_also_of_a_part_that_failed(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    part = Part(
        "training", 9, ("-c", f"open({str(run / 'metrics.jsonl')!r}, 'w').write('{{}}'); raise SystemExit(4)"),
        kept=[(run, "metrics.jsonl", "training.jsonl"), (run, "*.nothing", "")],
    )  # fmt: skip
    assert go(a_round(tmp_path, part)) == 1
    assert (tmp_path / "out" / "training.jsonl").read_text() == "{}"


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass the photos as a .beton file; the head of scripts/gpu_round.py"),
        (["none.beton"], "there is no none.beton; the head of scripts/gpu_round.py"),
    ],
)
def test_missing_photos_are_named_with_the_instructions(capsys, arguments, message):
    with pytest.raises(SystemExit):
        gpu_round.main(arguments)
    assert message in capsys.readouterr().err
