"""The commands `fastaugself eval geometry` and `fastaugself eval cka`: scores of features that need no labels.

Shape suffixes: N photos, Q views of each photo, D features.
"""

import itertools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..errors import UsageError
from ..files import check_outputs
from ..probes.alpha_req import FIRST
from ..probes.intervals import Score
from . import equivariance, geometry
from .encoder import Encoder
from .features import Extractor
from .fusion import fuse
from .options import Options
from .pooled_layers import layer_features
from .results import Row, number, table
from .splits import Dataset, Split, thin

log = logging.getLogger("fastaugself")

FEWEST = 20  # photos: two for each group of the jackknife


@dataclass(frozen=True)
class _OfPhotos(Options):
    """A measurement on the photos of one split, without their labels."""

    split: str = ""
    """Split of the photos; default: test, else all."""

    def chosen(self, dataset: Dataset) -> tuple[str, Split]:
        """The name of the split, and its photos. Raises UsageError for a split that is too small."""
        name = dataset.chosen_split(self.split) or "test"
        if len(split := dataset.split(name)) < FEWEST:
            raise UsageError(
                f"{dataset.name} has {len(split)} photos in the {name} split, and {self.name} needs at least {FEWEST}: "
                f"pass --data with more photos, or a larger --limit"
            )
        return name, split


@dataclass(frozen=True)
class Geometry(_OfPhotos):
    """Geometry of features, without labels: effective rank (RankMe), LiDAR over views, and decay of the spectrum.

    RankMe and alpha-ReQ (the decay) are of all photos of the split, LiDAR of several views of --photos of them.
    """

    photos: int = 1000
    """Number of photos for LiDAR, drawn at random; it is at most this number minus 1. Published: 1000."""
    views: int = 10
    """Views of each of these photos. Published: 10 to 50."""
    augmentation: str = "all"
    """Augmentation of the views: all (MoCo v2's), or one alone: crop, color, blur, flip, grayscale, rotation."""

    name: ClassVar[str] = "geometry"
    least: ClassVar[dict[str, float]] = {**Options.least, "photos": FEWEST, "views": 2}

    def __call__(self) -> list[Row]:
        """Runs the measurement; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        if self.augmentation not in (known := equivariance.policies(32)):
            raise UsageError(f"unknown augmentation {self.augmentation}; pass --augmentation {' or '.join(known)}")
        encoders, dataset, extract = self.encoders(), self.read_data(), self.extractor()
        where, split = self.chosen(dataset)
        photos = split.take(thin(split.labels_N, self.photos, seed=self.seed)) if self.photos < len(split) else split
        wholes = [extract(encoder, split, where) for encoder in encoders]
        if self.fuses(encoders):
            fuse(wholes, self.fusion)  # raises here, before the slow part
        views = [self._views(extract, encoder, photos) for encoder in encoders]
        rows = []
        for members in self.sets(encoders):
            names = tuple(encoders[i].name for i in members)
            x_ND = fuse([wholes[i] for i in members], self.fusion).x_ND
            x_NQD = fuse([views[i].features for i in members], self.fusion).x_ND.unflatten(0, (-1, self.views))
            rankme, alpha = geometry.rankme_and_alpha(x_ND, seed=self.seed)
            lidar = geometry.lidar_score(x_NQD, seed=self.seed)
            fusion = self.fuse if len(names) > 1 else ""
            width = x_ND.shape[1]
            rows.append(Row(names, fusion, "RankMe", rankme, len(split), {"most": min(len(split), width)}))
            details = {"most": min(len(photos) - 1, width), "views": self.views}
            rows.append(Row(names, fusion, "LiDAR", lidar, len(photos), details))
            if math.isnan(alpha.low):
                log.warning("%s: too few photos or features for alpha-ReQ, which begins at eigenvalue %d", names, FIRST)
            else:
                rows.append(Row(names, fusion, "alpha-ReQ", alpha, len(split)))
        about = {"split": where, "splits": dataset.how, "features": [whole.x_ND.shape[1] for whole in wholes]}
        path = self.write(dataset, encoders, rows, details=about, began=began)
        print(table(rows))
        print(path)
        return rows

    def _views(self, extract: Extractor, encoder: Encoder, photos: Split) -> equivariance.PhotoViews:
        policy = equivariance.policies(encoder.size)[self.augmentation]
        return equivariance.encode(extract, encoder, photos, policy, views=self.views, seed=self.seed)


@dataclass(frozen=True)
class Cka(_OfPhotos):
    """Similarity of representations: linear CKA of every pair of models, and with --layers of all their stages.

    A matrix for every pair of models, on a page. One model alone is compared layer by layer with itself.
    """

    photos: int = 1000
    """Number of photos, drawn at random."""
    layers: bool = False
    """Compare all stages, averaged over positions, rather than the features only; always for a single model."""

    name: ClassVar[str] = "cka"
    least: ClassVar[dict[str, float]] = {**Options.least, "photos": FEWEST}

    def __call__(self) -> list[Row]:
        """Runs the measurement; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        encoders, dataset, extract = self.encoders(), self.read_data(), self.extractor()
        where, split = self.chosen(dataset)
        photos = split.take(thin(split.labels_N, self.photos, seed=self.seed)) if self.photos < len(split) else split
        by_layer = self.layers or len(encoders) == 1
        found: dict[str, dict[str, Tensor]] = {}
        for encoder in encoders:
            found[encoder.name] = (
                layer_features(extract, encoder, photos, where)
                if by_layer
                else {"features": extract(encoder, photos, where).x_ND}
            )
            log.info("%s: %d layers of %d photos", encoder.name, len(found[encoder.name]), len(photos))
        keys = [(model, layer) for model, layers in found.items() for layer in layers]
        scores = geometry.cka_scores([found[model][layer] for model, layer in keys], seed=self.seed)
        rows = []
        for (i, (model, layer)), (j, (other, other_layer)) in itertools.combinations(enumerate(keys), 2):
            names = (model,) if model == other else (model, other)
            rows.append(
                Row(names, "", f"CKA of {layer} and {other_layer}" if by_layer else "CKA", scores[i][j], len(photos))
            )
        details: dict[str, Any] = {"split": where, "splits": dataset.how}
        path = self.write(dataset, encoders, rows, details=details, began=began)
        from .cka_page import write_page

        print(table(rows) if not by_layer else _diagonal(keys, scores))
        about = replace(self, models=self.models[:1]).words(  # no word about their fusion
            f"{len(photos)} photos of the {where} split", "activations averaged over positions" if by_layer else ""
        )
        print(write_page(path.with_suffix(".html"), dataset.name, keys, scores, about))
        print(path)
        return rows


def _diagonal(keys: Sequence[tuple[str, str]], scores: Sequence[Sequence[Score]]) -> str:
    """The similarity of each layer to the features of each model as text; the page has all pairs."""
    lines = []
    width = max(len(f"{model} {layer}") for model, layer in keys)
    ends = [j for j, (_, layer) in enumerate(keys) if layer == "features"]
    for i, (model, layer) in enumerate(keys):
        parts = [f"{keys[j][0]} {number(scores[i][j].value)}" for j in ends if j != i]
        lines.append(f"{f'{model} {layer}':<{width}}  CKA with the features of {', '.join(parts)}" if parts else "")
    return "\n".join(filter(None, lines))
