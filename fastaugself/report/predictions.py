"""Evaluation of trained AugSelf heads on pairs of views that were not used in training.

Shape suffixes: V views, B batch, C channels, H W, P parameter columns, D features, T targets.
"""

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastaugself_kernels import Targets, augself_targets

from ..aware.augself import REGRESSED
from ..data.dataset import Dataset
from ..training.batch import make_views
from ..training.trainer import Trainer
from .pairs import Pair, describe, to_uint8
from .samples import Sample, evenly_spaced, pack, read_stored
from .words import HEAD_LABELS

BATCH = 64  # pairs; fewer for large views on a CPU, to keep the report fast


class Score(NamedTuple):
    """Prediction quality of one parameter's difference over many pairs.

    error, baseline: for regression, the mean squared error of the head and of a head that always outputs 0; for
    classification, the accuracy of the head and of always predicting the most frequent class.
    """

    head: str
    label: str
    error: float
    baseline: float
    regression: bool

    @property
    def removed(self) -> float:
        """Fraction of the baseline error that the head removes: R² relative to a constant 0."""
        return 1 - self.error / self.baseline if self.baseline else 0.0


class Case(NamedTuple):
    """A pair of views with true and predicted differences.

    values: (label, true, predicted) of each parameter, by regression head. classes: the same as texts, for classifiers.
    """

    pair: Pair
    values: dict[str, list[tuple[str, float, float]]]
    classes: list[tuple[str, str, str]]


class Predictions(NamedTuple):
    """Predictions of a run's heads.

    cases: a few fixed pairs to show. scores: over `total` pairs, with views of `epoch`. held_out: whether the photos
    are those of `--data.val`.
    """

    cases: list[Case]
    scores: list[Score]
    total: int
    epoch: int
    held_out: bool


@torch.no_grad()
def evaluate_heads(trainer: Trainer, *, cases: int = 8, count: int = 512, seconds: float = 5.0) -> Predictions:
    """Predicts the differences of pairs of validation photos (training photos if there are none) after the last epoch.

    cases: number of pairs to show, evenly spaced over the classes. count: maximum number of pairs for the scores; fewer
    if they take more than `seconds`. Features are computed as in training, in evaluation mode: MoCo's view 2 passes
    through the key encoder.
    """
    config, learner = trainer.config, trainer.learner
    path = config.data.val or config.data.train
    if path is None:
        raise ValueError("the run has no photos: --data.train and --data.val are both empty")
    epoch, was_training = config.epochs, learner.training
    batch = BATCH if trainer.device.type == "cuda" else max(8, min(BATCH, BATCH * 96**2 // config.view.size**2))
    learner.eval()
    try:
        with Dataset(path) as data:
            shown = [
                Sample(f"sample {i}", i, read_stored(*data.locate(i))) for i in evenly_spaced(data.labels_N, cases)
            ]
            found = _cases(trainer, shown, epoch)
            sums, done = _Sums(), 0
            order = np.random.default_rng(0).permutation(len(data))
            began = time.perf_counter()
            while learner.augself is not None and done < count and (not done or time.perf_counter() - began < seconds):
                rounds, start = divmod(done, len(order))
                ids = [int(i) for i in order[start : start + min(batch, count - done)]]
                samples = [Sample("", i, read_stored(*data.locate(i))) for i in ids]
                _, _, targets, predictions = _predict(trainer, samples, epoch + rounds)
                sums.add(predictions, targets)
                done += len(ids)
    finally:
        learner.train(was_training)
    return Predictions(found, sums.scores(), done, epoch, config.data.val is not None)


def _predict(trainer: Trainer, samples: list[Sample], epoch: int) -> tuple[Tensor, Tensor, Targets, dict[str, Tensor]]:
    """Views, parameters, targets of (view 1, view 2), and raw predictions [B, T] by head, on the trainer's device."""
    config = trainer.config
    photos = pack(samples).to(trainer.device)
    x_VBCHW, params_VBP = make_views(config, photos, epoch, torch.float32)
    targets, _ = augself_targets(params_VBP, photos.sizes_B2, config.policies, mode=config.augself.mode)
    augself, method = trainer.learner.augself, trainer.learner.method
    if augself is None:
        return x_VBCHW, params_VBP, targets, {}
    # Not the method's forward: it gathers from all ranks, and only rank 0 is here.
    first, second = (augself.encode(method, x_BCHW, view).float() for view, x_BCHW in enumerate(x_VBCHW))
    raw = augself.predict(first, second)
    return x_VBCHW, params_VBP, targets, {name: values[: len(samples)] for name, values in raw.items()}


def _cases(trainer: Trainer, samples: list[Sample], epoch: int) -> list[Case]:
    """The pairs to show, with their predictions."""
    config = trainer.config
    x_VBCHW, params_VBP, targets, predictions = _predict(trainer, samples, epoch)
    statistics = (config.augment.mean, config.augment.std)
    mean_C11, std_C11 = (torch.tensor(values, device=x_VBCHW.device)[:, None, None] for values in statistics)
    pairs = describe(samples, to_uint8(x_VBCHW * std_C11 + mean_C11), params_VBP.cpu(), config.policies)
    found = []
    for b, pair in enumerate(pairs):
        values = {}
        for head in predictions.keys() & HEAD_LABELS.keys():
            true, guess = getattr(targets, REGRESSED[head])[b].tolist(), torch.tanh(predictions[head][b]).tolist()
            values[head] = list(zip(HEAD_LABELS[head], true, guess, strict=True))
        classes = []
        if "flip" in predictions:
            probability = float(torch.sigmoid(predictions["flip"][b, 0]))
            classes.append(("same flip", "yes" if targets.flip_B1[b, 0] else "no", f"{probability:.0%} yes"))
        if "rotation" in predictions:
            turns = int(predictions["rotation"][b].argmax())
            classes.append(("rotation", f"{int(targets.rotation_B[b]) * 90}°", f"{turns * 90}°"))
        found.append(Case(pair, {head: values[head] for head in HEAD_LABELS if head in values}, classes))
    return found


class _Sums:
    """Sums of squared errors and of correct classifications over batches."""

    def __init__(self) -> None:
        self._squares: dict[str, Tensor] = {}  # head to [2, T]: of the error, of the target
        self._correct: dict[str, Tensor] = {}  # head to counts: correct answers, then true answers of each class
        self._count = 0

    def add(self, predictions: dict[str, Tensor], targets: Targets) -> None:
        """Adds a batch. predictions: raw outputs [B, T] by head."""
        for head, raw in predictions.items():
            if head in REGRESSED:
                true = getattr(targets, REGRESSED[head])
                new = torch.stack([(torch.tanh(raw) - true).square().sum(0), true.square().sum(0)]).double().cpu()
                self._squares[head] = self._squares.get(head, torch.zeros_like(new)) + new
            else:
                classes = 2 if head == "flip" else 4
                true_B = targets.flip_B1[:, 0].long() if head == "flip" else targets.rotation_B
                predicted_B = (raw[:, 0] > 0).long() if head == "flip" else raw.argmax(1)
                new = torch.cat([(predicted_B == true_B).sum()[None], torch.bincount(true_B, minlength=classes)]).cpu()
                self._correct[head] = self._correct.get(head, torch.zeros_like(new)) + new
        self._count += len(targets.crop_B4)

    def scores(self) -> list[Score]:
        """The means over all batches so far."""
        found = []
        for head, sums in self._squares.items():
            error_T, baseline_T = (sums / self._count).tolist()
            rows = zip(HEAD_LABELS[head], error_T, baseline_T, strict=True)
            found += [Score(head, label, error, baseline, True) for label, error, baseline in rows]
        for head, counts in self._correct.items():
            correct, most_frequent = float(counts[0]), float(counts[1:].max())
            label = "same flip" if head == "flip" else "quarter turns"
            found.append(Score(head, label, correct / self._count, most_frequent / self._count, False))
        return found
