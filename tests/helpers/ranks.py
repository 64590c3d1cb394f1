"""Runs functions on several ranks over gloo, which are forks of one process that has imported everything.

Usage: ranks.py train BETON FOLDER NAME=RANKSxSTEP[,RANKSxSTEP] ... | ranks.py compile FOLDER
    | ranks.py compile-one FOLDER | ranks.py differ BETON FOLDER options|photos|step | ranks.py check BETON FOLDER

train: runs in FOLDER/NAME that stop at each STEP and resume with another number of RANKS. Rank R writes STEP-R.json for
the part that ends at STEP: digests of both views of each sample, by step and sample id.
compile: steps on two ranks in eager mode, compiled, and with a backward pass that fails to compile; writes RANK.pt.
compile-one: steps whose backward pass fails to compile on rank 1 only; writes the error to RANK.txt.
differ: two ranks with different options, photos or checkpoints; writes the error to RANK.txt.
check: the checks on 1, 2 and 3 ranks whose batch norms differ; writes RANKS-RANK.json, the scores by name of photos.
"""

import dataclasses
import datetime
import functools
import hashlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

import tiny_runs
import tiny_steps
import torch
from functorch.compile import make_boxed_func
from killed_runs import warm_up
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from fastaugself import AugSelf, Backbone, Data, Log, Optim, SwAV, distributed
from fastaugself.aware.augself import AugSelfLoss
from fastaugself.aware.learner import Learner
from fastaugself.errors import RunError, UsageError
from fastaugself.methods.base import BuildContext
from fastaugself.models.norm import BatchNorm2d
from fastaugself.probes import extract
from fastaugself.runs.build import build_learner
from fastaugself.training import compile as compiling
from fastaugself.training import online
from fastaugself.training.trainer import Trainer


def on_ranks(count, work):
    """Runs `work(world)` on `count` ranks; an error on one rank kills all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = set()
    for rank in range(count):
        child = os.fork()
        children.add(child)
        if child == 0:
            try:
                where = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_PORT": port}
                os.environ.update({"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in where.items()})
                work(distributed.start("cpu"))
                distributed.stop()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
    while children:
        child, status = os.wait()
        children.discard(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"one of {count} ranks failed")


def run_config(beton, folder):
    """A configuration whose learning rate is so small that rounding errors hardly grow."""
    return tiny_runs.config(
        beton,
        folder,
        backbone=Backbone(name="resnet18", width=4, stem="small", batch_norm="sync"),
        optim=Optim(lr=0.0005),
        epochs=5,
    )


def train_part(config, end):
    """Work for `on_ranks`: trains until step `end` and writes the digests of all views."""

    def work(world):
        trainer = Trainer(dataclasses.replace(config, max_steps=end), world)
        digests, train_step = {}, trainer.train_step

        def watched(batch):
            for b, sample in enumerate(batch.ids_B.tolist()):
                seen = batch.views.x_VBCHW[:, b].contiguous()
                digests[f"{trainer.global_step}: {sample}"] = hashlib.sha256(seen.numpy().tobytes()).hexdigest()
            return train_step(batch)

        trainer.train_step = watched
        trainer.fit()
        trainer.close()
        (config.run / f"{end}-{world.rank}.json").write_text(json.dumps(digests))

    return work


def train(beton, folder, *runs):
    for words in runs:
        name, parts = words.split("=")
        config = run_config(Path(beton), Path(folder) / name)
        config.run.mkdir()
        warm_up(config)
        for ranks, end in (map(int, part.split("x")) for part in parts.split(",")):
            on_ranks(ranks, train_part(config, end))


class SmallBuckets(DistributedDataParallel):
    """DDP with buckets of 1 MiB, the smallest first bucket that it allows."""

    __init__ = functools.partialmethod(DistributedDataParallel.__init__, bucket_cap_mb=1)


def learner_of(method):
    """A learner with synchronised batch norm in encoder and heads."""
    torch.manual_seed(0)
    width = tiny_steps.D
    backbone = nn.Sequential(
        nn.Conv2d(3, width, 3), BatchNorm2d(width, sync=True), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    parts = BuildContext(backbone, width, num_classes=4, sync=True)
    augself = AugSelfLoss(AugSelf(crop=0.5, color=0.5, hidden=8), width, policies=tiny_steps.POLICIES)
    return Learner(method.build(parts), {"augself": augself})


def steps_of(method, rank, bw_compiler=None):
    """Runs four steps. Returns losses, weights, (graphs after step 2, graphs after step 4, graph breaks) and events.

    Events of the last backward pass in order: "part" is a compiled part, "bucket" the start of a gradient all-reduce.
    """
    torch._dynamo.reset()
    counters.clear()
    backend = aot_autograd(fw_compiler=lambda graph, _: make_boxed_func(graph), bw_compiler=bw_compiler)
    options = {"backend": backend, "fullgraph": True, "dynamic": False}
    with patch("torch.compile", lambda module, _compile=torch.compile, **_: _compile(module, **options)):
        taken = tiny_steps.step_of(learner_of(method), compile="on" if bw_compiler else "off", processes=2)
    taken.must_compile = False
    taken.model.register_comm_hook(None, lambda _, bucket: (EVENTS.append("bucket"), allreduce_hook(None, bucket))[1])
    taken.probe(tiny_steps.batch(rank))
    losses, graphs = [], []
    for i in range(4):
        EVENTS.clear()
        with torch._dynamo.config.patch(error_on_recompile=i >= 2):
            result = taken(tiny_steps.batch(2 * i + rank), global_step=i, progress=(i + 1) / 10)
        losses.append(result.loss.detach())
        graphs.append(counters["stats"]["unique_graphs"])
    breaks = sum(counters["graph_break"].values())
    return torch.stack(losses), tiny_steps.tensors(taken), (graphs[1], graphs[3], breaks), list(EVENTS)


EVENTS = []


def backward_part(graph, inputs):
    def run(*arguments):
        EVENTS.append("part")
        return graph(*arguments)

    return make_boxed_func(run)


def no_backward_part(graph, inputs):
    raise RuntimeError("no compiler here")


def compile_on_two(folder):
    compiling.DistributedDataParallel = SmallBuckets
    method = SwAV(dim=512, hidden=1024, prototypes=300, freeze_steps=2, queue=0)  # 3 MiB of gradients
    compilers = {"eager": None, "compiled": backward_part, "broken": no_backward_part}

    def work(world):
        found = {kind: steps_of(method, world.rank, compiler) for kind, compiler in compilers.items()}
        torch.save(found, f"{folder}/{world.rank}.pt")

    on_ranks(2, work)


def compile_fails_on_one(folder):
    compiling.DistributedDataParallel = SmallBuckets
    distributed.TIMEOUT = datetime.timedelta(seconds=3)

    def work(world):
        try:
            steps_of(SwAV(dim=512, hidden=1024, queue=0), world.rank, no_backward_part if world.rank else backward_part)
            text = "no error"
        except RunError as error:
            text = str(error)
        Path(folder, f"{world.rank}.txt").write_text(text)
        os._exit(0)  # one rank waits for a collective that never happens

    on_ranks(2, work)


def differ(beton, folder, what):
    """Two ranks that differ in `what`; each writes its error to RANK.txt."""
    config = run_config(Path(beton), Path(folder) / "run")
    config.run.mkdir()
    if what == "step":
        on_ranks(1, train_part(config, 3))

    def work(world):
        own = config
        if world.rank and what == "options":
            own = dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=0.5))
        if world.rank and what == "photos":
            own = dataclasses.replace(config, data=dataclasses.replace(config.data, train=Path(folder) / "other.beton"))
        if world.rank and what == "step":
            own = dataclasses.replace(config, run=Path(folder) / "disk-of-another-node")
        try:
            Trainer(own, world)
            text = "no error"
        except UsageError as error:
            text = str(error)
        Path(folder, f"{world.rank}.txt").write_text(text)

    on_ranks(2, work)


def check(beton, folder):
    """The scores of three checks on 1, 2 and 3 ranks, with batches of 8 photos and LiDAR of 13."""
    photos = Path(beton)
    check = (f"part={photos}", f"plain={Path(folder) / 'plain.beton'}")
    data = Data(train=photos, val=photos, source="native", workers=1)
    config = tiny_runs.config(photos, Path(folder) / "run", data=data, log=Log(check=check))
    extract.BATCH = online.BATCH = 8
    online.LIDAR_PHOTOS, online.FEW_PHOTOS, online.LIDAR_VIEWS = 13, 3, 2
    warm_up(config)

    def work(world):
        learner = build_learner(config)
        statistics = [b for name, b in learner.method.backbone.named_buffers() if name.endswith("running_mean")]
        for buffer in statistics:
            buffer += world.rank
        evaluation = online.OnlineEvaluation(config, learner, world)
        with extract.evaluating(learner.method.backbone):
            scores = {data.name: evaluation.scores(data) for data in evaluation.checks}
        evaluation.close()
        assert all(bool((buffer == world.rank).all()) for buffer in statistics)  # restored
        Path(folder, f"{world.size}-{world.rank}.json").write_text(json.dumps(scores))

    for count in (1, 2, 3):
        on_ranks(count, work)


if __name__ == "__main__":
    torch.set_num_threads(1)
    commands = {"train": train, "compile": compile_on_two, "compile-one": compile_fails_on_one, "differ": differ}
    commands["check"] = check
    commands[sys.argv[1]](*sys.argv[2:])
