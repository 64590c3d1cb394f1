"""The protocols on features: functions from the features of a data set's splits to a score with its interval.

Shape suffixes: N samples, D features, T targets.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..probes.fewshot import draw_episodes, episode_accuracies
from ..probes.information import infonce_bound
from ..probes.intervals import Score, accuracy_score, bootstrap, mean_score, normal_score
from ..probes.knn import knn_predict
from ..probes.linear import choose_probe
from ..probes.localization import iou
from ..probes.retrieval import average_precision, nearest
from ..probes.ridge import choose_ridge, r2
from .splits import Dataset, require_classes


class Outcome(NamedTuple):
    """A score, its metric, the number of samples (or episodes) it is over, and further details as JSON values.

    others: further scores of the same features, such as those of other targets; each becomes a row.
    """

    metric: str
    score: Score
    samples: int
    details: dict[str, Any]
    others: tuple["Outcome", ...] = ()


Features = Mapping[str, Tensor]
Protocol = Callable[[Features], Outcome]


def knn(dataset: Dataset, *, neighbors: int, temperature: float, seed: int) -> Protocol:
    """k-NN classification of the test samples by the training samples."""
    require_classes(dataset, ("train", "test"))
    labels, truth = _labels(dataset, "train"), _labels(dataset, "test")

    def run(x: Features) -> Outcome:
        predicted_N = knn_predict(x["train"], labels, x["test"], neighbors=neighbors, temperature=temperature)
        score = accuracy_score((predicted_N == truth).numpy(), truth.numpy(), dataset.metric, seed=seed)
        return Outcome(dataset.metric, score, len(truth), {})

    return run


def linear(dataset: Dataset, *, seed: int, device: torch.device) -> Protocol:
    """Logistic regression on train, penalty chosen on val, refit on both, evaluated on test."""
    require_classes(dataset, ("train", "val"))
    require_classes(dataset, ("train", "test"))
    labels, val, truth = (_labels(dataset, name) for name in ("train", "val", "test"))

    def run(x: Features) -> Outcome:
        choice = choose_probe(x["train"], labels, x["val"], val, metric=dataset.metric, device=device)
        predicted_N = choice.probe.logits(x["test"]).argmax(1)
        score = accuracy_score((predicted_N == truth).numpy(), truth.numpy(), dataset.metric, seed=seed)
        details = {"penalty": choice.penalty, "val": dict(choice.path), "gap": choice.probe.gap}
        return Outcome(dataset.metric, score, len(truth), details)

    return run


def fewshot(dataset: Dataset, split: str, *, shots: int, ways: int, queries: int, episodes: int, seed: int) -> Protocol:
    """Few-shot classification in episodes drawn from one split."""
    labels_N = dataset.split(split).labels_N
    support, query = draw_episodes(labels_N, shots=shots, ways=ways, queries=queries, episodes=episodes, seed=seed)

    def run(x: Features) -> Outcome:
        accuracies_E = episode_accuracies(x[split], support, query)
        return Outcome(f"{ways}-way {shots}-shot", normal_score(accuracies_E), episodes, {})

    return run


def retrieval(dataset: Dataset, split: str, *, neighbors: int, seed: int) -> Protocol:
    """Precision at `neighbors`, and the mean average precision of the complete rankings."""
    require_classes(dataset, (split,))
    labels_N = _labels(dataset, split)

    def run(x: Features) -> Outcome:
        found = nearest(x[split], neighbors=neighbors)
        precision_N = (labels_N[found.index_NK] == labels_N[:, None]).double().mean(1).numpy()
        ap_N = average_precision(x[split], labels_N)
        details = {
            "mean_average_precision": float(ap_N.nanmean()),
            "top1": float((labels_N[found.index_NK[:, 0]] == labels_N).double().mean()),
        }
        return Outcome(f"precision at {neighbors}", mean_score(precision_N, seed=seed), len(labels_N), details)

    return run


def localization(targets: Mapping[str, Tensor], *, seed: int) -> Protocol:
    """Mean square error of boxes (centre x, centre y, width, height) as fractions of the input's side."""

    def run(x: Features) -> Outcome:
        ridge = choose_ridge(x["train"], targets["train"], x["val"], targets["val"])
        predicted, truth = ridge.predict(x["test"]), targets["test"].double()
        error_N = (predicted - truth).square().mean(1)
        mean_T = torch.cat([targets["train"], targets["val"]]).double().mean(0)
        details = {
            "penalty": ridge.penalty,
            "mean_iou": float(iou(predicted, truth).mean()),
            "error_of_the_mean_box": float((truth - mean_T).square().mean()),
        }
        return Outcome("mean square error", mean_score(error_N.numpy(), seed=seed), len(truth), details)

    return run


def regression(targets: Mapping[str, Tensor], names: tuple[str, ...], *, seed: int) -> Protocol:
    """R2 of ridge regression on test, mean over targets. names: of the targets."""

    def run(x: Features) -> Outcome:
        ridge = choose_ridge(x["train"], targets["train"], x["val"], targets["val"])
        predicted, truth = ridge.predict(x["test"]), targets["test"].double()
        details = {"penalty": ridge.penalty, "r2": dict(zip(names, r2(predicted, truth), strict=True))}
        return Outcome("R2", r2_score(predicted, truth, seed=seed), len(truth), details)

    return run


def information(histograms: Mapping[str, Tensor], *, epochs: int, batch_size: int, seed: int) -> Protocol:
    """Lower bound, in nats, on the mutual information of colour histograms and features."""

    def run(x: Features) -> Outcome:
        values, ceiling = infonce_bound(
            (histograms["train"], x["train"]),
            (histograms["test"], x["test"]),
            batch_size=batch_size,
            epochs=epochs,
            seed=seed,
        )
        score = mean_score(values.numpy(), seed=seed)
        return Outcome("nats", score, len(histograms["test"]), {"ceiling": ceiling, "batches": len(values)})

    return run


def r2_score(predicted_NT: Tensor, truth_NT: Tensor, *, seed: int) -> Score:
    """Mean R2 over targets, with a bootstrap interval over samples; UsageError for a constant target."""
    p, t = predicted_NT.double().cpu().numpy(), truth_NT.double().cpu().numpy()
    r2(predicted_NT, truth_NT)  # raises for a constant target

    def statistic(index: np.ndarray) -> float:
        deviation = t[index] - t[index].mean(0)
        return float((1 - ((p - t)[index] ** 2).sum(0) / np.maximum((deviation**2).sum(0), 1e-300)).mean())

    return bootstrap(statistic, len(t), seed=seed)


def _labels(dataset: Dataset, split: str) -> Tensor:
    return torch.from_numpy(dataset.split(split).labels_N)
