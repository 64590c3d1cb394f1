"""Standard output and standard error that are closed, full, or without a reader; names that are not UTF-8."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from tiny_runs import metrics, saved_steps

from fastaugself import Log
from fastaugself.config.serialize import to_dict
from fastaugself.training import logs

RECIPE = Path(__file__).parents[2] / "recipes" / "imagenet_moco_augself.py"
FULL = "/dev/full"
pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full, as on Linux")


def shell(redirection, *arguments, **environment):
    """Runs a command of Python with shell redirections; $GONE is a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    line = f'exec "$@" {redirection}'.replace("$GONE", f"&{writing}")
    try:
        return subprocess.run(
            ["bash", "-c", line, "-", sys.executable, *map(str, arguments)], capture_output=True, timeout=120,
            pass_fds=[writing], env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
    finally:
        os.close(writing)


REDIRECTIONS = {
    "full disk": "> /dev/full 2>&1",
    "reader gone": ">$GONE 2>&1",
    "errors closed": "2>&-",
    "both closed": ">&- 2>&-",
}


TALKS = """import logging
logging.getLogger("fastaugself").addFilter(lambda record: print("words" * 9999, flush=True) or True)
"""  # a recipe may print while it trains


@pytest.mark.parametrize("kind", REDIRECTIONS)
def test_a_run_goes_on_without_its_console(kind, beton, tmp_path):
    run = tmp_path / "run"
    configured = to_dict(tiny_runs.config(beton, run, max_steps=3))
    (tmp_path / "config.json").write_text(json.dumps(configured))
    talks = tmp_path / "talks.py"
    talks.write_text(TALKS + RECIPE.read_text())
    done = shell(REDIRECTIONS[kind], "-P", talks, "--from", tmp_path / "config.json", "--run", run)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert len(metrics(run)) == 3
    assert saved_steps(run)[-1] == 3
    assert (run / "report.html").exists()
    log = (run / "train.log").read_text()
    assert "step 3/3" in log
    assert "backbone  " in log
    told = "the console cannot be written" in log
    assert told == (kind in ("full disk", "reader gone"))
    assert log.count("cannot be written") <= 1


COMMANDS = {
    "info": ["info", "{beton}"],
    "help": ["write", "--help"],
    "datasets": ["eval", "datasets"],
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_commands_without_standard_output_end_as_with_it(kind, beton):
    command = ["-m", "fastaugself", *(word.format(beton=beton) for word in COMMANDS[kind])]
    usual = shell("", *command)
    for redirection in (">&-", "2>&-", "<&- >&- 2>&-"):
        done = shell(redirection, *command)
        assert (done.returncode, done.stderr) == (usual.returncode, b"" if "2>" in redirection else usual.stderr)
    full = shell("> /dev/full", *command)
    assert full.returncode == 1
    assert full.stderr.endswith(b"error: standard output: No space left on device\n")
    assert b"Traceback" not in full.stderr
    assert b"Exception ignored" not in full.stderr
    gone = shell(">$GONE", *command)
    assert gone.returncode == 141
    assert b"Exception" not in gone.stderr


def test_data_do_not_get_the_descriptor_of_a_closed_stream(photo_folder, tmp_path):
    """Without care, the first file opened would get descriptor 1, and everything printed would be written into it."""
    usual, closed = tmp_path / "usual.beton", tmp_path / "closed.beton"
    assert shell("", "-m", "fastaugself", "write", photo_folder, usual).returncode == 0
    assert shell("<&- >&- 2>&-", "-m", "fastaugself", "write", photo_folder, closed).returncode == 0
    assert closed.read_bytes() == usual.read_bytes()


def test_a_wrong_option_is_code_2_whatever_the_streams(tmp_path):
    for redirection in (">&-", "2>&-", "2> /dev/full"):
        assert shell(redirection, "-m", "fastaugself", "info", tmp_path / "none").returncode == 2


def test_a_log_on_a_full_disk_is_reported_once(tmp_path, capsys):
    (tmp_path / "train.log").symlink_to(FULL)
    try:
        logs.start_logging(tmp_path, is_main=True)
        for i in range(3):
            logging.getLogger("fastaugself.training").info("line %d", i)
    finally:
        logs.start_logging(None, is_main=True)
    err = capsys.readouterr().err
    assert err.count("train.log cannot be written ([Errno 28] No space left on device)") == 1
    assert [line for line in err.splitlines() if line.startswith("line")] == ["line 0", "line 1", "line 2"]
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_names_that_are_not_utf8_are_kept_and_printed_escaped(photo_folder, tmp_path):
    """In an ordinary locale, where Python's standard output refuses what is not UTF-8 (C.UTF-8 writes it as it is)."""

    def odd(name):
        return tmp_path / os.fsdecode(name)

    def ends(code, *command):
        done = shell("", *command, PYTHONIOENCODING="utf-8:strict", FASTAUGSELF_CACHE=str(odd(b"c\xe4che")))
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        done.stdout.decode()
        return done.stdout + done.stderr

    for folder in sorted(photo_folder.iterdir()):
        to = odd(b"ph\xf6tos") / os.fsdecode(folder.name.encode() + b"\xe9")
        to.mkdir(parents=True)
        for photo in list(folder.iterdir())[:9]:
            (to / os.fsdecode(b"\xdf" + photo.name.encode())).write_bytes(photo.read_bytes())
    photos, beton, run, out = (odd(name) for name in (b"ph\xf6tos", b"b\xe9.beton", b"r\xfcn", b"\xf6ut"))
    command = ("-m", "fastaugself")
    assert rb"b\udce9.beton: 36 photos" in ends(0, *command, "write", photos, beton)
    ends(0, *command, "info", beton)
    ends(0, *command, "verify", beton)
    ends(0, *command, "views", photos, "--out", odd(b"v\xe9.html"), "--count", "1", "--size", "32")
    configured = to_dict(tiny_runs.config(photos, run, max_steps=2, log=Log(every=1, tensorboard=True)))
    configured["data"]["val"] = str(photos)
    (tmp_path / "config.json").write_text(json.dumps(configured))
    ends(0, "-P", RECIPE, "--from", tmp_path / "config.json")
    assert rb"ph\udcf6tos" in (run / "export" / "README.md").read_bytes()
    assert rb"r\udcfcn" in (run / "train.log").read_bytes()
    ends(0, *command, "export", run)
    ends(0, *command, "report", run)
    ends(0, *command, "eval", "retrieval", run, run / "export", "--data", photos, "--out", out, "--shown", "1")
    assert (out / "results.md").read_text(encoding="utf-8")
    assert rb"r\udcfcn" in ends(2, *command, "eval", "knn", run / "none", "--data", photos)
