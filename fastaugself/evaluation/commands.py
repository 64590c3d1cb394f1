"""The commands of `fastaugself eval` that read features.

Shape suffixes: N samples, T targets.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..errors import UsageError
from ..probes.information import BINS, Histogram
from ..probes.intervals import mean_score
from ..probes.localization import frame_boxes
from ..probes.ridge import choose_ridge, r2
from . import protocols
from .encoder import Encoder
from .features import Extractor
from .fusion import Representation
from .options import FeatureOptions
from .parameters import COLUMNS, Pairs, pairs, predict, train_heads
from .prepare import to_frame
from .protocols import Features, Outcome, Protocol
from .results import Row
from .splits import Dataset


@dataclass(frozen=True)
class Knn(FeatureOptions):
    """k-NN classification: weighted votes of the nearest training images by cosine similarity."""

    neighbors: int = 20
    """Number of nearest training images that vote."""
    temperature: float = 0.07
    """Temperature T of the vote weights exp(cosine / T)."""

    name: ClassVar[str] = "knn"
    least: ClassVar[dict[str, float]] = {**FeatureOptions.least, "neighbors": 1, "temperature": 0.001}
    needs: ClassVar[tuple[str, ...]] = ("train", "test")

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        return protocols.knn(dataset, neighbors=self.neighbors, temperature=self.temperature, seed=self.seed)


@dataclass(frozen=True)
class Linear(FeatureOptions):
    """Linear probe: logistic regression, the best of 45 L2 penalties on val, refit on train and val."""

    name: ClassVar[str] = "linear"

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        return protocols.linear(dataset, seed=self.seed, device=self.torch_device())


@dataclass(frozen=True)
class FewShot(FeatureOptions):
    """Few-shot classification: one-vs-rest logistic regression on a few images of a few classes."""

    shots: int = 5
    """Labelled images per class; published values are 1 and 5."""
    ways: int = 5
    """Classes per episode."""
    queries: int = 16
    """Images to classify, per class."""
    episodes: int = 2000
    """Number of episodes."""

    name: ClassVar[str] = "fewshot"

    def splits(self, dataset: Dataset) -> tuple[str, ...]:
        return (_whole(dataset) if dataset.episodes == "all" else "test",)

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        return protocols.fewshot(
            dataset,
            self.splits(dataset)[0],
            shots=self.shots,
            ways=self.ways,
            queries=self.queries,
            episodes=self.episodes,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Retrieval(FeatureOptions):
    """Retrieval: precision among the nearest images of each test image, with a page that shows them."""

    neighbors: int = 5
    """Images retrieved per query."""
    shown: int = 24
    """Number of queries on the page; 0 = no page."""

    name: ClassVar[str] = "retrieval"
    least: ClassVar[dict[str, float]] = {**FeatureOptions.least, "neighbors": 1, "shown": 0}

    def splits(self, dataset: Dataset) -> tuple[str, ...]:
        return ("test" if "test" in dataset.splits else _whole(dataset),)

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        return protocols.retrieval(dataset, self.splits(dataset)[0], neighbors=self.neighbors, seed=self.seed)

    def finish(self, dataset: Dataset, rows: Sequence[Row], features: Sequence[Features], page: Path) -> None:
        if not self.shown:
            return
        from .retrieval_page import write_page

        split = self.splits(dataset)[0]
        found = [(row.label, x[split]) for row, x in zip(rows, features, strict=True)]
        print(write_page(page, dataset, split, found, neighbors=self.neighbors, shown=self.shown, seed=self.seed))


@dataclass(frozen=True)
class _Targets(FeatureOptions):
    def targets(self, dataset: Dataset, extract: Extractor, encoder: Encoder) -> dict[str, Tensor]:
        """Targets by split, float64 [N, T]; boxes and points as fractions of the square that the encoder sees."""
        found = {}
        for name in self.splits(dataset):
            split = dataset.split(name)
            if split.targets_NT is None:
                raise UsageError(
                    f"{dataset.name} has no targets: pass a --dataset with boxes or points, a .beton file with "
                    f"columns, or folders with a targets.csv"
                )
            values = split.targets_NT
            if dataset.kind in ("boxes", "points"):
                values = to_frame(values, extract.sizes(split.images), encoder.size, extract.side(encoder))
            found[name] = torch.from_numpy(values)
        return found

    def _same_frame(self, extract: Extractor, encoders: Sequence[Encoder]) -> Encoder:
        """The first encoder; UsageError if the central crops of the models differ, since targets depend on the crop."""
        crops = {encoder.size / extract.side(encoder) for encoder in encoders}
        if len(crops) > 1:
            raise UsageError("the models see different crops of the images: pass one --size and --resize for all")
        return encoders[0]


@dataclass(frozen=True)
class Localize(_Targets):
    """Localisation: the object's box by ridge regression, scored by mean square error and IoU."""

    name: ClassVar[str] = "localize"

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        if dataset.kind != "boxes":
            raise UsageError(f"{dataset.name} has no boxes: pass a data set with boxes, such as --dataset cub200")
        targets = self.targets(dataset, extract, self._same_frame(extract, encoders))
        boxes = {name: frame_boxes(values.numpy()) for name, values in targets.items()}
        return protocols.localization(boxes, seed=self.seed)


@dataclass(frozen=True)
class Regression(_Targets):
    """Ridge regression of landmarks or other targets, scored by R2."""

    name: ClassVar[str] = "regression"

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        targets = self.targets(dataset, extract, self._same_frame(extract, encoders))
        count = next(iter(targets.values())).shape[1]
        names = dataset.target_names or tuple(f"{'xy'[i % 2]}{i // 2}" for i in range(count))
        return protocols.regression(targets, names, seed=self.seed)


@dataclass(frozen=True)
class Information(FeatureOptions):
    """InfoNCE lower bound, in nats, on the mutual information of an image's colour histogram and its features."""

    bins: int = BINS
    """Histogram bins per channel; the histogram is over the RGB cube."""
    epochs: int = 50
    """Epochs of critic training."""
    critic_batch: int = 256
    """Batch size of the critic; the bound cannot exceed its logarithm."""

    name: ClassVar[str] = "information"
    least: ClassVar[dict[str, float]] = {**FeatureOptions.least, "bins": 2, "epochs": 1, "critic_batch": 8}
    needs: ClassVar[tuple[str, ...]] = ("train", "test")

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        module = Histogram(self.bins)
        size = encoders[0].size
        digest = hashlib.blake2b(f"{module!r} {size}".encode(), digest_size=16).hexdigest()
        histogram = Encoder("histogram", "", module.eval(), size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), digest)
        histograms = {name: extract(histogram, dataset.split(name), name).x_ND for name in self.needs}
        return protocols.information(histograms, epochs=self.epochs, batch_size=self.critic_batch, seed=self.seed)


@dataclass(frozen=True)
class Parameters(FeatureOptions):
    """Prediction of the difference between two views' augmentation parameters from their features.

    Scored by R2 for each group of parameters: crop, color, blur; with --probe heads also the accuracy of flip.
    """

    probe: Literal["linear", "heads"] = "linear"
    """Ridge regression, or AugSelf's heads (one MLP each), which also predict whether both views have the same flip."""

    name: ClassVar[str] = "parameters"

    def parts(self, dataset: Dataset, extract: Extractor, encoder: Encoder) -> dict[str, Representation]:
        found = {}
        for name in self.needs:
            part = self._pairs(dataset, extract, encoder, name).features
            for view, x_ND in zip(("1", "2"), part.x_ND.chunk(2, 1), strict=True):
                found[name + view] = part._replace(x_ND=x_ND)
        return found

    def _pairs(self, dataset: Dataset, extract: Extractor, encoder: Encoder, name: str) -> Pairs:
        return pairs(extract, encoder, dataset.split(name), seed=self.seed + self.needs.index(name))

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        y = {name: self._pairs(dataset, extract, encoders[0], name).targets_NT for name in self.needs}

        def run(views: Features) -> Outcome:
            x = {name: torch.cat([views[name + "1"], views[name + "2"]], 1) for name in self.needs}
            if self.probe == "linear":
                ridge = choose_ridge(x["train"], y["train"][:, :-1], x["val"], y["val"][:, :-1])
                predicted = ridge.predict(x["test"])
                details: dict[str, Any] = {"penalty": ridge.penalty}
                flips: list[Outcome] = []
            else:
                heads = train_heads(x["train"], y["train"], seed=self.seed)
                predicted_and_flip = predict(heads, x["test"])
                predicted = predicted_and_flip[:, :-1]
                details, flips = {}, [self._flips(predicted_and_flip[:, -1], y["test"][:, -1])]
            truth = y["test"][:, :-1]
            found, start = [], 0
            for group, columns in COLUMNS.items():
                part = slice(start, start := start + len(columns))
                score = protocols.r2_score(predicted[:, part], truth[:, part], seed=self.seed)
                by_column = dict(zip(columns, r2(predicted[:, part], truth[:, part]), strict=True))
                found.append(Outcome(f"R2 of {group}", score, len(truth), {**details, "r2": by_column}))
            return found[0]._replace(others=(*found[1:], *flips))

        return run

    def _flips(self, predicted_N: Tensor, truth_N: Tensor) -> Outcome:
        """Accuracy of whether both views have the same flip, beside that of the more frequent answer."""
        same_N = truth_N > 0.5
        correct_N = ((predicted_N > 0.5) == same_N).double()
        share = float(same_N.double().mean())
        score = mean_score(correct_N.numpy(), seed=self.seed)
        return Outcome("accuracy of flip", score, len(truth_N), {"chance": max(share, 1 - share)})


def _whole(dataset: Dataset) -> str:
    """The name of the split with all samples."""
    if "all" not in dataset.splits:
        raise UsageError(f"{dataset.name} has no split `all`, only {', '.join(dataset.splits)}: pass another --dataset")
    return "all"
