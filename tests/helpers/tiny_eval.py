"""Small models for the tests of `fastaugself eval`, and its command line."""

import dataclasses

from fastaugself.cli.main import main as cli
from fastaugself.config.schema import Pretrain
from fastaugself.methods import MoCo
from fastaugself.models.build import Backbone
from fastaugself_kernels import ViewPolicy


def tiny(seed=0, **changes):
    """A configuration of a ResNet-18 of an eighth of the width at 32 px."""
    config = Pretrain(
        view=ViewPolicy.moco_v2(32),
        backbone=Backbone("resnet18", width=8),
        method=MoCo(queue=64),
        batch_size=8,
        seed=seed,
    )
    return dataclasses.replace(config, **changes)


def call(*arguments):
    """The exit code of `fastaugself eval` with these arguments."""
    try:
        cli(["eval", *map(str, arguments)])
    except SystemExit as end:
        return 0 if end.code is None else end.code
    return 0
