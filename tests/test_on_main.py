"""Waiting for rank 0: as long as it lives and works, whatever the timeout of collectives is."""

import os
import socket
import subprocess
import sys

import pytest

SCRIPT = """
import datetime, os, sys, time
import torch.distributed as dist
from fastaugself import distributed
from fastaugself.errors import RunError, UsageError

rank, size, port = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
patient, short = (datetime.timedelta(seconds=s) for s in (100, 3))  # to start; of collectives
store = dist.TCPStore("127.0.0.1", port, size, is_master=rank == 0, timeout=patient, wait_for_workers=True)
dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=short)
distributed.HEARTBEAT, distributed.SILENCE = 0.2, 2.0
case, calls = sys.argv[1], []

def work():
    calls.append(len(calls))
    if distributed.rank() == 0:
        time.sleep(5 if case == "slow" else 0.5)  # 5 s: longer than a collective may take
        if case == "dies":
            os._exit(9)
        if case == "refused":
            raise UsageError("photos: no such folder; pass another")
        if case == "fails":
            raise OSError("disk full")
    return f"result of {distributed.rank()}"

with distributed.joined("cpu"):
    began = time.monotonic()
    if case == "late" and rank == 0:
        time.sleep(4)  # longer than the silence that a dead rank 0 would keep
    try:
        print(distributed.on_main(work, what="writing the photos", tell=print) or work(), calls, flush=True)
        if case == "slow":
            print(distributed.on_main(work, what="writing again", tell=print) or work(), calls, flush=True)
    except (UsageError, RunError, OSError) as error:
        print(type(error).__name__, error, calls, flush=True)
    assert time.monotonic() - began < 60
    os._exit(0)  # without collectives at the end, which a dead rank would not join
"""


def run(case, count):
    """Standard output of each rank; ranks are started as srun would, so that no launcher kills the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, case], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip
    return [(*process.communicate(timeout=100), process.returncode) for process in ranks]


@pytest.mark.parametrize("count", [2, 4])
def test_the_others_wait_longer_than_a_collective_would_and_then_work_themselves(count):
    for rank, (out, error, code) in enumerate(run("slow", count)):
        assert out.splitlines() == [f"result of {rank} [0]", f"result of {rank} [0, 1]"], error
        assert code == 0


def test_rank_0_may_come_later_than_the_others():
    assert [out.strip() for out, *_ in run("late", 2)] == ["result of 0 [0]", "result of 1 [0]"]


REFUSED = "UsageError photos: no such folder; pass another"
FAILED = "RunError rank 0 failed while it was writing the photos: OSError: disk full"


@pytest.mark.parametrize(
    ("case", "main", "others"), [("refused", REFUSED, REFUSED), ("fails", "OSError disk full", FAILED)]
)
def test_an_error_of_rank_0_ends_the_wait(case, main, others):
    (first, *_), *rest = run(case, 2)
    assert first.strip() == f"{main} [0]"
    assert [out.strip() for out, *_ in rest] == [f"{others} []"]


@pytest.mark.parametrize("count", [2, 4])
def test_the_death_of_rank_0_ends_the_wait(count):
    (_, _, code), *rest = run("dies", count)
    assert code == 9
    for out, error, _ in rest:
        assert out.startswith("RunError ") and out.rstrip().endswith("[]"), error
        assert "lost while it was writing the photos" in out or "no sign of life for 2 s" in out
