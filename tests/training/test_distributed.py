"""Multi-process training: four ranks, compiled, killed, signalled, and two nodes (network namespaces)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_runs import metrics, saved_weights

from fastaugself.data.inputs.convert import write_beton
from fastaugself.runs import checkpoint

RECIPE = Path(__file__).parents[2] / "recipes" / "imagenet_moco_augself.py"
STEPS = 20


def options(beton, run, *more):
    return [
        str(RECIPE), "--preset", "demo", "--data.train", str(beton), "--data.val", "None", "--data.source", "native",
        "--data.workers", "1", "--backbone.width", "4", "--backbone.batch-norm", "sync", "--view.size", "16",
        "--method.queue", "32", "--method.dim", "16", "--augself.hidden", "16", "--batch-size", "16", "--epochs", "5",
        "--optim.lr", "0.0025", "--log.every", "1", "--log.no-tensorboard", "--checkpoint.minutes", "0.00001",
        "--run-dir", str(run), *more,
    ]  # fmt: skip


def torchrun(*arguments):
    return [sys.executable, "-m", "torch.distributed.run", *arguments]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@contextmanager
def started(command, log):
    """Runs a command in the background; kills its process group at the end."""
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(),
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def ranks(parent):
    """Process ids of the running ranks of torchrun, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                environment = entry.joinpath("environ").read_bytes().split(b"\0")
                for variable in environment:
                    if variable.startswith(b"RANK="):
                        found[int(variable[5:])] = int(entry.name)
        except (OSError, ValueError, IndexError):
            continue
    return found


def newest(run):
    found = checkpoint.checkpoints(run / "checkpoints")
    return int(found[-1].stem.removeprefix("step-")) if found else 0


def wait_for(condition, log, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.01)


def losses(run):
    return {m["step"]: [m["loss_ssl"], m["loss_crop"], m["loss_color"]] for m in metrics(run)}


def assert_same_losses(one, other):
    """Every step once, with equal losses.

    At this learning rate rounding errors grow to 1e-5 over all steps, while another momentum (0.8) changes losses by
    1e-2 within six steps; at twice the learning rate rounding errors reach 1e-3 after 18 steps.
    """
    assert list(one) == list(other) == list(range(1, STEPS + 1))
    for step in one:
        assert other[step] == pytest.approx(one[step], abs=1e-4), step


@pytest.fixture(scope="module")
def alone(beton, tmp_path_factory):
    """The losses of a run on one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, *options(beton, run)]
    subprocess.run(command, check=True, capture_output=True, env=environment())
    return losses(run)


@pytest.mark.slow
def test_no_step_is_lost_when_ranks_are_killed_and_one_is_signalled(beton, tmp_path, alone):
    """torchrun restarts all ranks after each kill; the signal stops all at one step; one process finishes the run."""
    run, log = tmp_path / "run", tmp_path / "log"
    command = torchrun("--standalone", "--nproc-per-node=2", "--max-restarts=2", "--monitor-interval=0.1")
    with started([*command, *options(beton, run)], log) as process:
        for victim, number, enough in ((1, signal.SIGKILL, 2), (0, signal.SIGKILL, 5), (1, signal.SIGUSR1, 8)):
            wait_for(lambda enough=enough: newest(run) >= enough, log)
            assert newest(run) < STEPS - 2, "the run was nearly over before a rank could be signalled"
            pid = ranks(process.pid)[victim]
            os.kill(pid, number)
            wait_for(lambda pid=pid: pid not in ranks(process.pid).values(), log)
        wait_for(lambda: process.poll() is not None, log)
    assert process.returncode != 0  # the signal came when no restart was left
    stopped = newest(run)
    text = log.read_text()
    assert 8 <= stopped < STEPS and f"stopped at step {stopped}" in text and text.count("resume ") >= 2, text[-3000:]
    again = subprocess.run([sys.executable, *options(beton, run)], capture_output=True, text=True, env=environment())
    assert again.returncode == 0, again.stderr
    assert_same_losses(alone, losses(run))


def forked_ranks(*arguments):
    script = Path(__file__).parents[2] / "tests" / "helpers" / "ranks.py"
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_four_processes_then_two_then_one_give_the_results_of_one(beton, tmp_path):
    """Each part of the run ends in the middle of an epoch of four steps."""
    names = ("alone", "several")
    forked_ranks("train", beton, tmp_path, "alone=1x20", "several=4x6,2x13,1x20")
    views = {name: {} for name in names}
    for name in names:
        for path in (tmp_path / name).glob("*-?.json"):
            digests = json.loads(path.read_text())
            assert not views[name].keys() & digests.keys()  # no sample on two ranks
            views[name].update(digests)
    assert len(views["alone"]) == STEPS * 16 and views["several"] == views["alone"]
    assert_same_losses(*(losses(tmp_path / name) for name in names))
    one, several = (saved_weights(tmp_path / name) for name in names)
    for key in one:
        torch.testing.assert_close(
            several[key], one[key], rtol=1e-3, atol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.slow
def test_compiled_steps_on_two_processes_are_the_eager_ones_in_one_graph_cut_at_the_buckets(tmp_path):
    """Synchronised batch norm, all-gathers and all-reduces are inside the graph; nothing is compiled twice.

    If the backward pass fails to compile, when DDP already waits for it, training continues in eager mode.
    """
    forked_ranks("compile", tmp_path)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        losses, weights, _, _ = found["eager"]
        for kind in ("compiled", "broken"):
            torch.testing.assert_close(found[kind][0], losses)
            for key in weights:
                torch.testing.assert_close(found[kind][1][key], weights[key])
        graphs, events = found["compiled"][2:]
        assert graphs == (1, 1, 0), "graphs after the second step and the last, and breaks"
        last = len(events) - 1 - events[::-1].index("part")
        assert events.index("bucket") < last, f"no all-reduce of gradients overlaps with the backward pass: {events}"


@pytest.mark.slow
def test_a_compiler_failure_on_one_rank_only_ends_the_run_on_all(tmp_path):
    forked_ranks("compile-one", tmp_path)
    messages = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert all(f"failed on rank {rank} and not on all processes" in text for rank, text in enumerate(messages)), (
        messages
    )
    assert "no compiler here" in messages[1] and "pass --compile off" in messages[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("options", "rank 1 was started with --optim.lr 0.5, rank 0 with 0.0005; pass the same options"),
        ("photos", "rank 1 has other photos than rank 0 in"),
        ("step", "rank 0 found that of step 3 as the newest checkpoint in"),
    ],
)
def test_ranks_that_differ_are_refused_before_the_first_step(beton, photo_folder, tmp_path, what, message):
    write_beton(photo_folder / "coffee", tmp_path / "other.beton", progress=False)
    forked_ranks("differ", beton, tmp_path, what)
    for rank in (0, 1):
        assert message in (tmp_path / f"{rank}.txt").read_text()


def test_the_checks_are_the_same_on_one_two_and_three_processes(beton, photo_folder, tmp_path):
    """Also where the batch norms of the processes differ: those of rank 0 count."""
    for i in range(14):
        (tmp_path / "plain").mkdir(exist_ok=True)
        shutil.copy(photo_folder / "coffee" / f"{i:02d}.jpg", tmp_path / "plain")
    write_beton(tmp_path / "plain", tmp_path / "plain.beton", progress=False)
    forked_ranks("check", beton, tmp_path)
    alone = json.loads((tmp_path / "1-0.json").read_text())
    assert {name: set(scores) for name, scores in alone.items()} == {
        "": {"rankme", "alpha", "lidar", "knn", "linear"},
        "part": {"rankme", "alpha", "lidar", "knn", "linear"},
        "plain": {"rankme", "lidar"},
    }
    for ranks in (2, 3):
        for rank in range(ranks):
            found = json.loads((tmp_path / f"{ranks}-{rank}.json").read_text())
            for name, scores in alone.items():
                assert found[name] == pytest.approx(scores, rel=1e-6), (ranks, rank, name)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture()
def two_nodes():
    """Names, addresses and interfaces of two network namespaces connected by a veth pair."""
    names = [f"fas{os.getpid()}{side}" for side in "ab"]
    try:
        made = ip("netns", "add", names[0])
    except FileNotFoundError:
        pytest.skip("the ip command (iproute2) is not installed")
    if made.returncode:
        pytest.skip(f"cannot create network namespaces: {made.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        cable = ip(
            "link", "add", "node0", "netns", names[0], "type", "veth", "peer", "name", "node1", "netns", names[1]
        )
        if cable.returncode:
            pytest.skip(f"cannot create a veth pair: {cable.stderr.strip()}")
        for i, name in enumerate(names):
            for command in (f"addr add 10.77.0.{i + 1}/24 dev node{i}", f"link set node{i} up", "link set lo up"):
                done = ip("-n", name, *command.split())
                assert done.returncode == 0, done.stderr
        yield [(name, f"10.77.0.{i + 1}", f"node{i}") for i, name in enumerate(names)]
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow
def test_two_nodes_with_one_killed_give_the_results_of_one_process(beton, tmp_path, alone, two_nodes):
    run = tmp_path / "run"
    master = two_nodes[0][1]
    meeting = ("--nnodes=2", "--nproc-per-node=1", f"--master-addr={master}", "--master-port=29577")
    commands = [
        [
            *("ip", "netns", "exec", name, "env", "-u", "GLOO_SOCKET_IFNAME"),  # it is found
            *torchrun(*meeting, f"--node-rank={i}", "--max-restarts=1", "--monitor-interval=0.1"),
            *options(beton, run),
        ]
        for i, (name, *_) in enumerate(two_nodes)
    ]
    logs = [tmp_path / "log0", tmp_path / "log1"]
    with started(commands[0], logs[0]) as first, started(commands[1], logs[1]) as second:
        wait_for(lambda: newest(run) >= 3, logs[0])
        assert newest(run) < STEPS - 2, "the run was nearly over before a node could be killed"
        os.kill(ranks(second.pid)[1], signal.SIGKILL)
        for process, log in ((first, logs[0]), (second, logs[1])):
            wait_for(lambda process=process: process.poll() is not None, log)
    assert (first.returncode, second.returncode) == (0, 0), logs[0].read_text()[-2000:] + logs[1].read_text()[-2000:]
    assert "2 processes" in logs[0].read_text() and "lr 0.00015625 = 0.0025 x 16/256" in logs[0].read_text()
    assert logs[0].read_text().count("resume ") == 1
    assert_same_losses(alone, losses(run))
