"""The command `fastaugself eval equivariance`.

Shape suffixes: N photos, K views of each photo, D features, n parameter columns.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from ..files import check_outputs
from . import equivariance
from .encoder import Encoder
from .equivariance import Measured, PhotoViews, Standard
from .features import Extractor
from .fusion import fuse
from .options import Options
from .own_predictor import OwnPredictor, own_predictor
from .results import Row, label, number
from .splits import Dataset

log = logging.getLogger("fastaugself")

FEWEST = {"train": 8, "test": 2}  # photos: of training the predictor, and of an interval


@dataclass(frozen=True)
class Equivariance(Options):
    """Equivariance: whether the features of a view can be predicted from another view's and both views' parameters.

    A predictor is trained on the features of the training photos' views, for each augmentation alone. Runs of EquiMod,
    SEN, SIE and seq-JEPA are also measured with the predictor that they trained themselves.
    """

    augmentations: tuple[str, ...] = ("all", "crop", "color", "blur", "flip")
    """Augmentations of the views: all (MoCo v2's), or one alone: crop, color, blur, flip, grayscale, rotation."""
    views: int = 8
    """Views of each test photo, among which the predicted view is ranked."""
    train_views: int = 4
    """Views of each training photo."""
    epochs: int = 30
    """Epochs of training the predictor."""

    name: ClassVar[str] = "equivariance"
    least: ClassVar[dict[str, float]] = {**Options.least, "views": 2, "train_views": 2, "epochs": 1}

    def __call__(self) -> list[Row]:
        """Runs the measurement; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        equivariance.known(self.augmentations, 32)  # raises before the models are loaded
        encoders, dataset, extract = self.encoders(), self.read_data(), self.extractor()
        for split, fewest in FEWEST.items():
            if len(dataset.split(split)) < fewest:
                raise UsageError(
                    f"{dataset.name} has {len(dataset.split(split))} photos in the {split} split, and equivariance "
                    f"needs at least {fewest}: pass --data with more photos, or a larger --limit"
                )
        if self.fuses(encoders):  # features that cannot be fused are refused here, before the slow part
            self._views(dataset, extract, encoders, "test", self.augmentations[0])
        found: dict[str, dict[str, Measured]] = {}
        rows: list[Row] = []
        for members in self.sets(encoders):
            names = tuple(encoders[i].name for i in members)
            fusion = self.fuse if len(names) > 1 else ""
            by_name = self._model(dataset, extract, [encoders[i] for i in members])
            found[label(" + ".join(names), fusion)] = by_name
            rows += _rows(names, fusion, by_name, len(dataset.split("test")))
            own = own_predictor(encoders[members[0]]) if len(members) == 1 else None
            if own is not None:
                by_name = self._own(dataset, extract, encoders[members[0]], own)
                found[f"{names[0]}, {own.title}'s own predictor"] = by_name
                rows += _rows(names, fusion, by_name, len(dataset.split("test")), by=f" by {own.title}")
        sizes = {name: len(dataset.split(name)) for name in FEWEST}
        path = self.write(dataset, encoders, rows, details={"splits": dataset.how, "sizes": sizes}, began=began)
        from .equivariance_page import write_page

        print(table(found))
        about = self.words(
            f"{sizes['test']} test photos with {self.views} views each",
            f"predictor of {self.epochs} epochs on {sizes['train']} training photos with {self.train_views} views each",
        )
        print(write_page(path.with_suffix(".html"), dataset.name, found, about, views=self.views))
        print(path)
        return rows

    def _model(self, dataset: Dataset, extract: Extractor, members: Sequence[Encoder]) -> dict[str, Measured]:
        """The scores of a model, or of the fusion of several, by augmentation."""
        found = {}
        for name in self.augmentations:
            f, a = {}, {}
            for split in FEWEST:
                f[split], a[split] = self._views(dataset, extract, members, split, name)
            predictor = equivariance.fit_predictor(f["train"], a["train"], epochs=self.epochs, seed=self.seed)
            unit = Standard(a["train"].flatten(0, 1))
            scores = equivariance.measure(predictor, f["test"], a["test"], unit(a["test"]))
            found[name] = equivariance.summary(scores, unit(a["test"]), seed=self.seed)
            models = " + ".join(encoder.name for encoder in members)
            log.info("%s under %s: MRR %s", models, name, number(found[name].scores["MRR"].value))
        return found

    def _own(self, dataset: Dataset, extract: Extractor, encoder: Encoder, own: OwnPredictor) -> dict[str, Measured]:
        """The scores of the predictor that a run trained itself, by augmentation."""
        found = {}
        every = equivariance.policies(encoder.size)
        split = dataset.split("test")
        source = None
        if own.from_plain:
            plain = equivariance.encode(extract, encoder, split, ViewPolicy.none(encoder.size), views=1, seed=self.seed)
            source = plain.features.x_ND[:, None].expand(-1, self.views, -1)
        for name in self.augmentations:
            options: dict[str, Any] = {"views": self.views, "seed": self.seed + 1}
            views = equivariance.encode(extract, encoder, split, every[name], **options)
            a = views.parameters(every[name])
            unit = Standard(a.flatten(0, 1))
            condition = own.condition(views.params_KNP, views.sizes_N2)
            f = views.features.x_ND.unflatten(0, (-1, self.views))
            scores = equivariance.measure(own, f, condition, unit(a), source_NKD=source)
            found[name] = equivariance.summary(scores, unit(a), seed=self.seed)
        return found

    def _views(
        self, dataset: Dataset, extract: Extractor, members: Sequence[Encoder], split: str, name: str
    ) -> tuple[Tensor, Tensor]:
        """Features [N, K, D] and parameters [N, K, n] of the views of a split under one augmentation."""
        training = split == "train"
        count, seed = (self.train_views, self.seed) if training else (self.views, self.seed + 1)
        parts: list[PhotoViews] = []
        policy = ViewPolicy()
        for encoder in members:
            policy = equivariance.policies(encoder.size)[name]
            parts.append(equivariance.encode(extract, encoder, dataset.split(split), policy, views=count, seed=seed))
        fused = fuse([part.features for part in parts], self.fusion)
        return fused.x_ND.unflatten(0, (-1, count)), parts[0].parameters(policy)


def _rows(
    models: tuple[str, ...], fusion: str, by_name: Mapping[str, Measured], photos: int, *, by: str = ""
) -> list[Row]:
    return [
        Row(
            models,
            fusion,
            f"{metric}{by} under {name}",
            score,
            photos,
            {"chance": measured.chance[metric], "ceiling": measured.ceiling.get(metric)},
        )
        for name, measured in by_name.items()
        for metric, score in measured.scores.items()
    ]


def table(found: Mapping[str, Mapping[str, Measured]]) -> str:
    """The scores as text for the console, with their intervals and the level of chance."""
    lines = []
    width = max(map(len, found))
    for model, by_name in found.items():
        for name, measured in by_name.items():
            for metric, score in measured.scores.items():
                level = f"chance {number(measured.chance[metric])}" if metric != "gain" else "copy 0"
                if measured.ceiling.get(metric, 1.0) not in (0.0, 1.0):
                    level += f", at most {number(measured.ceiling[metric])}"
                lines.append(
                    f"{model:<{width}}  {metric} under {name} {number(score.value)}  "
                    f"({number(score.low)} to {number(score.high)}; {level})"
                )
    return "\n".join(lines)
