"""Trains in processes that are killed at random moments until one finishes the run (for training/test_survival.py).

Each process is a fork of this one, which has imported everything but computed no gradient (autograd's threads do not
survive a fork), so that it starts in a fraction of a second.

Usage: killed_runs.py CONFIG.json KILLS SEED. Prints the number of kills, and the step of the newest checkpoint after
each kill.
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
    """Loads the compiled numba code once, before forking."""
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
                    sys.exit(f"a training process failed with status {status}")
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
