"""The GPU round without a GPU: budgets, calls, verdicts that survive a kill, and its rehearsal."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpu_parts
import gpu_rehearsal
import gpu_round
import head_to_head
from fastaugself.errors import RunError
from gpu_parts import Folders, Machine, Part

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_round.py"
NAMES = ["compile", "tests", "tune", "augment", "training", "head", "step", "e2e", "cudnn", "scale", "tables"]


def folders(path):
    return Folders(path / "x.beton", path / "out", path / "run", None)


def say(text, status=0):
    return ("-c", f"print({text!r}); raise SystemExit({status})")


def a_round(tmp_path, *planned, device="GPU"):
    (tmp_path / "out").mkdir(exist_ok=True)
    return gpu_round.Round(planned, tmp_path / "out", device, sys.executable)


def go(round_, *wanted, seconds=100.0, fresh=False):
    return gpu_round.go(round_, gpu_round.make_parser(), wanted, time.monotonic() + seconds, fresh=fresh)


def verdicts(tmp_path):
    return {part["name"]: part for part in json.loads((tmp_path / "out" / "round.json").read_text())["parts"]}


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


# --- what the results must be -----------------------------------------------------------------------------------------


def test_a_part_whose_results_are_wrong_has_failed(tmp_path, capsys):
    def verify():
        raise KeyError("rows")

    assert go(a_round(tmp_path, Part("one", 9, say(""), verify))) == 1
    assert verdicts(tmp_path)["one"]["reason"] == "its results: KeyError 'rows'"
    assert go(a_round(tmp_path, Part("two", 9, say(""), lambda: {"rates": {"a": 1234.5}, "list": [0.25]}))) == 0
    assert "    rates: a 1,234\n    list: 0.25\n" in capsys.readouterr().out


BENCHMARK = {"environment": {}, "config": {}, "rows": [{"name": "ours", "views_per_s": 8.0}], "ratios": {"pil": 2.0}}


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        ({"rows": []}, (), r"x\.json has no rows"),
        ({"rows": [{"name": "ours", "views_per_s": float("nan")}]}, (), r"x\.json has no rate for ours"),
        ({"config": None}, (), r"x\.json lacks config"),
        ({}, ("ratios", "emission"), r"x\.json lacks emission"),
    ],
)
def test_a_benchmarks_record_of_another_form_is_refused(tmp_path, change, keys, message):
    path = tmp_path / "x.json"
    content = {key: value for key, value in (BENCHMARK | change).items() if value is not None}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        gpu_parts.benchmark_figures(path, keys)
    path.write_text(json.dumps(BENCHMARK | {"left_out": [{"name": "kornia", "reason": "not there"}]}))
    assert gpu_parts.benchmark_figures(path, ()) == {
        "views_per_s": {"ours": 8.0},
        "ratios": {"pil": 2.0},
        "left_out": {"kornia": "not there"},
    }
    path.write_text("")
    with pytest.raises(ValueError, match=r"x\.json was not written"):
        gpu_parts.benchmark_figures(path, ())


def metrics_of(path, reserved, loss=1.0):
    """Two lines an epoch; the first of each has another reserve, which does not count."""
    lines = []
    for i, value in enumerate(reserved):
        for part in (0.5, 1.0):
            extra = 0.0 if part == 1.0 else 5.0
            line = {"step": len(lines) + 1, "epoch": i + part, "loss_ssl": loss, "pairs_per_s": 9.0, "data_wait": 0.1}
            lines.append(json.dumps(line | {"memory_reserved_gib": value + extra}))
    path.write_text("\n".join(lines) + "\n")


def test_a_reserve_that_is_flat_after_the_first_epochs_is_told_by_epoch(tmp_path):
    path = tmp_path / "training.jsonl"
    metrics_of(path, [3.0, 4.0, 4.0, 8.0, 8.0, 8.0, 8.1])
    found = gpu_parts.training_figures(path, cuda=True)
    assert found["reserved_gib_by_epoch"] == [3.0, 4.0, 4.0, 8.0, 8.0, 8.0, 8.1]
    assert found["reserved_growth"] == pytest.approx(0.1 / 8)


def test_a_reserve_that_grows_by_a_batch_an_epoch_fails(tmp_path):
    path = tmp_path / "training.jsonl"
    metrics_of(path, [3.0 + 0.15 * epoch for epoch in range(12)])
    with pytest.raises(ValueError, match=r"the reserved memory grows: 3\.00, 3\.15, .* GiB after the epochs"):
        gpu_parts.training_figures(path, cuda=True)
    assert gpu_parts.training_figures(path, cuda=False) == {"pairs_per_s": 9.0, "data_wait": 0.1}
    metrics_of(path, [3.0] * 5)
    with pytest.raises(ValueError, match="the reserved memory of 5 epochs does not show whether it grows"):
        gpu_parts.training_figures(path, cuda=True)
    metrics_of(path, [3.0] * 12, loss=float("nan"))
    with pytest.raises(ValueError, match="no finite number at step 1"):
        gpu_parts.training_figures(path, cuda=True)


def test_gpu_tests_that_were_all_skipped_are_no_success_on_a_gpu(tmp_path):
    log = tmp_path / "tests.log"
    log.write_text("....\n23 skipped in 1.9s\n")
    assert gpu_parts.outcome_figures(log, cuda=False) == {"skipped": 23}
    with pytest.raises(ValueError, match=r"no GPU test passed: 23 skipped in 1\.9s"):
        gpu_parts.outcome_figures(log, cuda=True)
    log.write_text("..\n21 passed, 2 skipped in 30s\n")
    assert gpu_parts.outcome_figures(log, cuda=True) == {"passed": 21, "skipped": 2}
    log.write_text("")
    with pytest.raises(ValueError, match="no GPU test skipped: the log is empty"):
        gpu_parts.outcome_figures(log, cuda=False)


def test_names_of_devices_are_those_of_the_launch_shapes():
    configs = pytest.importorskip("fastaugself_kernels.triton.configs")
    for name in ("NVIDIA H100 80GB HBM3", "AMD Instinct MI300X / OAM", "NVIDIA H200"):
        assert gpu_parts.slug(name) == configs.name_of(name)


# --- the head-to-head -------------------------------------------------------------------------------------------------


def test_rates_are_those_after_the_compilation_and_ratios_those_to_the_published():
    lines = [{"step": i, "loss_ssl": 1.0, "pairs_per_s": rate} for i, rate in enumerate((1.0, 2.0, 1820.2, 910.1))]
    assert head_to_head.rates(lines, 2) == [1820.2, 910.1]
    with pytest.raises(RunError, match="training logged 4 lines, more than 4 are needed"):
        head_to_head.rates(lines, 4)
    lines[3]["loss_ssl"] = float("inf")
    with pytest.raises(RunError, match="the loss is no finite number at step 3"):
        head_to_head.rates(lines, 2)
    compared = head_to_head.against_published([head_to_head.Row("ours", [910.1, 1820.2, 2730.3])])
    assert compared["ours / kornia, stacked"] == pytest.approx({"median": 2.0, "min": 1.0, "max": 3.0})
    assert len(compared) == len(head_to_head.PUBLISHED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--photos", "no.beton", "--device", "cpu"], "--photos no.beton does not exist; leave it out"),
        (["--device", "cuda"], "torch finds no CUDA device; pass --device cpu"),
    ],
)
def test_the_head_to_head_refuses_what_it_cannot_measure(tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(head_to_head.torch.cuda, "is_available", lambda: False)
    assert head_to_head.main(["--json", str(tmp_path / "head.json"), *arguments]) == 2
    assert message in capsys.readouterr().err


# --- the command and the rehearsal ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("name", "keys"), [("step", ["breakdown"]), ("e2e", ["data_wait"]), ("scale", ["ratios"])])
def test_the_records_of_the_training_benchmarks_have_the_form_that_the_round_reads(name, keys):
    (path, *_) = sorted((ROOT / "results").glob(f"*/{name}.json"))
    found = gpu_parts.benchmark_figures(path, keys)
    assert len(found["samples_per_s"]) > 1 and found["ratios"]


def test_measured_algorithms_are_compared_with_the_part_before(tmp_path):
    for name, rate in (("e2e", 100.0), ("cudnn", 125.0)):
        content = BENCHMARK | {"rows": [{"name": "training", "samples_per_s": rate}], "data_wait": 0.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert gpu_parts.cudnn_figures(tmp_path)["vs_e2e"] == {"training": 1.25}


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
