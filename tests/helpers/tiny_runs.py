"""Training runs of a fraction of a second. `beton`: the fixture's file of 64 photos, which is 4 steps per epoch."""

import dataclasses
import json

from fastaugself import Augment, AugSelf, Backbone, Checkpoint, Data, Log, MoCo, Optim, Pretrain, ViewPolicy
from fastaugself.config.serialize import to_dict
from fastaugself.distributed import World
from fastaugself.runs import checkpoint
from fastaugself.training.trainer import Trainer

ALONE = World.single()


def config(beton, run, **changes):
    """MoCo v2 + AugSelf for 8 steps at 16 px, on a ResNet-18 with 1/16 of the usual width."""
    base = Pretrain(
        data=Data(train=beton, source="native", workers=1),
        view=ViewPolicy.moco_v2(16),
        augment=Augment(blur_kernel=5),
        backbone=Backbone(name="resnet18", width=4, stem="small"),
        method=MoCo(queue=32, dim=8, momentum=0.9),
        augself=AugSelf(crop=0.5, color=0.5, hidden=8),
        optim=Optim(lr=0.1),
        log=Log(every=1, tensorboard=False),
        checkpoint=Checkpoint(),
        run=run,
        epochs=2,
        batch_size=16,
    )
    return dataclasses.replace(base, **changes)


def train(configuration):
    """Trains a run to its end and returns the closed trainer; raises the errors of training."""
    configuration.run.mkdir(parents=True, exist_ok=True)
    (configuration.run / "config.json").write_text(json.dumps(to_dict(configuration)))
    trainer = Trainer(configuration, ALONE)
    try:
        trainer.fit()
        return trainer
    finally:
        trainer.close()


def metrics(run):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def saved_steps(run):
    """Steps of the checkpoints of a run, in ascending order."""
    return [int(path.stem.removeprefix("step-")) for path in checkpoint.checkpoints(run / "checkpoints")]


def saved_weights(run):
    """The learner's state in the newest checkpoint."""
    return checkpoint.load(checkpoint.checkpoints(run / "checkpoints")[-1])["state"]["learner"]
