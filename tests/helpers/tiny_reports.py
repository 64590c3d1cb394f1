"""Runs of a fraction of a second with checks on photos, and their reports."""

import tiny_runs

from fastaugself import Data, Log
from fastaugself.report.report import write_report


def config(beton, run, **changes):
    """Evaluates every epoch, on the training photos."""
    data, log = Data(train=beton, val=beton, source="native", workers=1), Log(every=1, tensorboard=False, knn_epochs=1)
    return tiny_runs.config(beton, run, **{"data": data, "log": log, **changes})


def written(trainer):
    """The page of a run, written to its folder."""
    path = write_report(trainer.config.run, trainer)
    assert path == trainer.config.run / "report.html"
    return path.read_text()
