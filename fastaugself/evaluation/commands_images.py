"""The commands of `fastaugself eval` that transform images: invariance and the similarity of layers.

Shape suffixes: N samples, D features, M images of a measurement, J values of a transform.
"""

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import UsageError
from ..files import check_outputs
from ..probes.intervals import mean_score
from . import invariance, layers
from .encoder import Encoder
from .features import Extractor
from .fusion import Representation, fuse
from .invariance import Invariance
from .options import Options
from .results import Row, table
from .splits import Dataset
from .transforms import transforms

log = logging.getLogger("fastaugself")

RESIZE = 256 / 224  # shorter side after resizing, relative to the input size, as published


@dataclass(frozen=True)
class InvarianceCommand(Options):
    """Invariance to synthetic transforms, or to the viewpoint of objects, with a page of transforms x models."""

    split: str = ""
    """Split of the clean images; default: test, else all."""
    transforms: tuple[str, ...] = ()
    """Names of the transforms; default: all 18."""
    images: int = 100
    """Number of images to transform; published: 1000."""
    values: int = 16
    """Parameter values per transform, over its range; published: 256."""
    views: bool = False
    """The data are views of objects, one class per object: measure the invariance to pose, light, ... instead."""

    name: ClassVar[str] = "invariance"
    least: ClassVar[dict[str, float]] = {**Options.least, "images": 2, "values": 2}

    def __call__(self) -> list[Row]:
        """Runs the measurement; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        encoders, dataset = self.encoders(), self.read_data()
        split = dataset.chosen_split(self.split)
        found = self._views(encoders, dataset) if self.views else self._synthetic(encoders, dataset, split)
        rows = []
        for members, by_name in zip(self.sets(encoders), found.values(), strict=True):
            names = tuple(encoders[i].name for i in members)
            count = len(dataset.split("all")) if self.views else self.images
            rows += _rows(names, self.fuse if len(names) > 1 else "", by_name, count)
        path = self.write(dataset, encoders, rows, details={"split": split, "splits": dataset.how}, began=began)
        from .invariance_page import write_page

        print(table(rows))
        if self.views:
            about = self.words(f"{len(dataset.split('all'))} views of objects, one class per object")
        else:
            shown = min(self.images, len(dataset.split(split)))
            kinds = next(iter(found.values()))
            about = self.words(
                f"{shown} images of the {split} split",
                f"{len(kinds)} transforms with about {self.values} values each, over the range of each",
                "" if self.resize else "shorter side resized to 256/224 of the input, then the central square",
                f"features whitened over all {len(dataset.split(split))} clean images of the split",
            )
        print(write_page(path.with_suffix(".html"), dataset.name, found, about))
        print(path)
        return rows

    def _extractor(self, encoder: Encoder) -> Extractor:
        resize = self.resize or round(encoder.size * RESIZE)
        if resize <= encoder.size:
            raise UsageError(
                f"--resize {resize} leaves no border around the {encoder.size} pixels of {encoder.name}'s input, and "
                f"translations need one: pass --resize {round(encoder.size * RESIZE)}, the published ratio, or omit it"
            )
        return dataclasses.replace(self.extractor(), resize=resize, filter="bilinear")

    def _synthetic(self, encoders: list[Encoder], dataset: Dataset, name: str) -> dict[str, dict[str, Invariance]]:
        split = dataset.split(name)
        chosen = invariance.draw(len(split), self.images, seed=self.seed)
        clean: list[Representation] = []
        changed: dict[str, list[Representation]] = {}
        identities: dict[str, tuple[int, ...]] = {}
        for encoder in encoders:
            extract = self._extractor(encoder)
            clean.append(extract(encoder, split, name))
            if not self.fuses(encoders):
                invariance.whitening(clean[-1].x_ND)  # raises here, before the slow part
            for transform in transforms(self.values, size=encoder.size, resize=extract.resize, names=self.transforms):
                x_MJD = invariance.transformed(extract, encoder, split, chosen, transform, resize=extract.resize)
                part = Representation(encoder.name, x_MJD.flatten(0, 1), transform.name)
                changed.setdefault(transform.name, []).append(part)
                identities[transform.name] = transform.identity
                log.info("%s under %s: %d images x %d values", encoder.name, transform.name, *x_MJD.shape[:2])
        found = {}
        for members in self.sets(encoders):
            whole = fuse([clean[i] for i in members], self.fusion)
            white = invariance.whitening(whole.x_ND)
            clean_MD = whole.x_ND[torch.from_numpy(chosen)]
            found[whole.name] = {
                kind: invariance.measure(
                    white,
                    clean_MD,
                    fuse([parts[i] for i in members], self.fusion).x_ND.unflatten(0, (len(chosen), -1)),
                    identities[kind],
                    seed=self.seed,
                )
                for kind, parts in changed.items()
            }
        return found

    def _views(self, encoders: list[Encoder], dataset: Dataset) -> dict[str, dict[str, Invariance]]:
        split = dataset.split("all")
        parts = [
            dataclasses.replace(self.extractor(), filter="bilinear")(encoder, split, "all") for encoder in encoders
        ]
        objects = torch.from_numpy(split.labels_N)
        found = {}
        for members in self.sets(encoders):
            whole = fuse([parts[i] for i in members], self.fusion)
            measured = invariance.measure_views(invariance.whitening(whole.x_ND), whole.x_ND, objects, seed=self.seed)
            found[whole.name] = {dataset.name: measured}
        return found


def _rows(models: tuple[str, ...], fusion: str, by_name: dict[str, Invariance], images: int) -> list[Row]:
    rows = []
    for name, found in by_name.items():
        details = {
            "published": found.published._asdict(),
            "distance": found.distance,
            "by_value": found.by_value,
        }
        rows.append(Row(models, fusion, f"{name} (debiased)", found.debiased, images, details))
    return rows


@dataclass(frozen=True)
class Layers(Options):
    """Similarity of images and their augmented versions at every layer of the network."""

    split: str = ""
    """Split of the images; default: test, else all."""
    augmentations: tuple[str, ...] = ()
    """Augmentations to measure: flip, color, grayscale, blur, crop; default: all."""

    name: ClassVar[str] = "layers"

    def __call__(self) -> list[Row]:
        """Runs the measurement; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        encoders, dataset = self.encoders(), self.read_data()
        split = dataset.chosen_split(self.split)
        rows = []
        cosines: dict[str, dict[str, dict[str, float]]] = {}
        for encoder in encoders:
            found = layers.measure(
                encoder,
                dataset.split(split),
                seed=self.seed,
                device=self.torch_device(),
                batch_size=self.batch_size,
                workers=self.workers,
                names=self.augmentations,
            )
            for augmentation, by_layer in found.items():
                for layer, values in by_layer.items():
                    same = values["same"].numpy()
                    details = {
                        "other": float(values["other"].mean()),
                        "infonce": float(values["infonce"].mean()),
                        "infonce_of_chance": 2 * layers.TEMPERATURE * math.log(min(self.batch_size, len(same))),
                    }
                    score = mean_score(same, seed=self.seed)
                    cosines.setdefault(augmentation, {}).setdefault(encoder.name, {})[layer] = score.value
                    rows.append(
                        Row((encoder.name,), "", f"cosine at {layer} under {augmentation}", score, len(same), details)
                    )
        path = self.write(dataset, encoders, rows, details={"split": split}, began=began)
        from .layers_page import write_page

        print(table(rows))
        print(write_page(path.with_suffix(".html"), dataset.name, split, cosines))
        print(path)
        return rows
