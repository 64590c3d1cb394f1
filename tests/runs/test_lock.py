"""One training process at a time per run folder; dead ones, and file systems without locks, are no obstacle."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest
from tiny_runs import ALONE, config, saved_steps

from fastaugself import MoCo, files
from fastaugself.errors import UsageError
from fastaugself.pretraining import run_pretraining
from fastaugself.runs.lock import LOCK, locked

HOLDER = """
import sys, time
from pathlib import Path
from fastaugself.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of `tmp_path/runs/a`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "runs" / "a")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_training_of_a_run_is_refused_until_the_first_ends(holder, beton, tmp_path):
    run = tmp_path / "runs" / "a"
    before = sorted(os.listdir(run))
    remedy = "wait until it ends, or pass another --run"
    for _ in range(2):  # a refusal leaves the lock to its owner
        with pytest.raises(UsageError, match=rf"^--run {run} is in use .*\({holder.pid} on .*\); {remedy}$"):
            run_pretraining(config(beton, run, max_steps=1), ALONE)
    assert sorted(os.listdir(run)) == before == [LOCK]
    run_pretraining(config(beton, tmp_path / "runs" / "b", max_steps=1), ALONE)  # the second remedy
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (run / LOCK).exists()
    run_pretraining(config(beton, run, max_steps=1), ALONE)  # the first one
    assert saved_steps(run) == [1] and not (run / LOCK).exists()


def test_the_file_of_a_process_on_another_machine_locks_nothing(beton, tmp_path):
    (tmp_path / LOCK).write_text("1 on another-machine\n")
    run_pretraining(config(beton, tmp_path, max_steps=1), ALONE)
    assert saved_steps(tmp_path) == [1] and not (tmp_path / LOCK).exists()


def test_two_at_the_same_moment_are_one_after_the_other_or_one(tmp_path):
    """Sixteen threads that lock and release: never two inside, although each removes the file."""
    inside, most, refused = [], [], []

    def use():
        for _ in range(50):
            try:
                with locked(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except UsageError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) + len(refused) == 800
    assert {message for message in refused if "is in use by another" not in message} == set()


def test_a_refused_start_leaves_no_folder_behind(beton, tmp_path):
    with pytest.raises(UsageError, match="is larger than the data set of 64 photos"):
        run_pretraining(config(beton, tmp_path / "runs" / "a", batch_size=128, method=MoCo(queue=128, dim=8)), ALONE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_used_with_one_warning(number, beton, tmp_path, monkeypatch, caplog):
    def refuse(fd, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_without_locks", set())
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        (tmp_path / "run" / "x").touch()
    assert caplog.text.count("has no locks") == 1 and str(tmp_path / "run") in caplog.text


@pytest.mark.parametrize("path", ["file/run", "file"])
def test_a_folder_that_cannot_be_made_is_named(path, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=rf"--run {tmp_path / path} cannot be written to .*; pass another folder"):
        locked(tmp_path / path).__enter__()
