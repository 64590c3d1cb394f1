"""Trains in processes that are killed at random moments until one gets to the end (for training/test_survival.py).

Every training is a fork of this process, which has imported everything but computed no gradient (autograd's threads
do not survive a fork): a start takes a fraction of a second.

Usage: killed_runs.py CONFIG.json KILLS SEED; prints the number of kills and of the steps that the checkpoints had then.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from fastaugself.config.schema import Pretrain
from fastaugself.config.serialize import from_dict
from fastaugself.data.loader import Loader
from fastaugself.distributed import World
from fastaugself.runs import checkpoint
from fastaugself.training.batch import make_batch
from fastaugself.training.trainer import Trainer


def train(config):
    trainer = Trainer(config, World.single())
    try:
        trainer.fit()
    finally:
        trainer.close()


def warm_up(config):
    """Loads what numba has compiled, once for all forks."""
    with Loader(config.data.train, batch_size=config.batch_size, source="native", workers=1) as loader:
        epoch = loader.epoch(0)
        make_batch(config, next(epoch), 0, torch.float32)
        epoch.close()


def main():
    config = from_dict(Pretrain, json.loads(Path(sys.argv[1]).read_text()))
    wanted, draw = int(sys.argv[2]), random.Random(int(sys.argv[3]))
    folder = config.run / "checkpoints"
    warm_up(config)
    kills, steps, longest = 0, [], 1.2
    while True:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                train(config)
                os._exit(0)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
        moment = draw.uniform(0.0, longest) if kills < wanted else 600.0
        while time.monotonic() - began < moment:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                if status:
                    sys.exit(f"a training failed with status {status}")
                print(kills, json.dumps(steps))
                return
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        found = checkpoint.checkpoints(folder)
        steps.append(int(found[-1].stem.removeprefix("step-")) if found else 0)


if __name__ == "__main__":
    main()
