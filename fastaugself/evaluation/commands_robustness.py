"""The command `fastaugself eval robustness`.

Shape suffixes: N images or sequences, D features.
"""

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from ..files import check_outputs
from ..probes.linear import Probe, choose_probe
from ..probes.robustness import SEVERITIES, flip_rates
from . import robustness
from .corruptions import SMALLEST, Corrupted, check_names, package
from .encoder import Encoder
from .features import Extractor
from .fusion import Representation, fuse
from .options import Options
from .results import Row, table
from .robustness import Baseline, ScoredSet
from .robustness_rows import error_rates, score_rows
from .splits import Dataset, Split, require_classes

log = logging.getLogger("fastaugself")

Floats = NDArray[np.float64]
_Found = Mapping[tuple[int, ...], list[Floats]]


@dataclass(frozen=True)
class Robustness(Options):
    """Robustness: the linear probe trained on clean images and tested on shifted ones and on corruptions.

    --data: the clean images, such as ImageNet or a part of it. Without --shifted and --corruptions, the fifteen
    corruptions of ImageNet-C are computed from its test images. Accuracies are top-1.
    """

    shifted: tuple[str, ...] = ()
    """Shifted test sets, NAME=PATH with NAME of imagenet-v2, imagenet-r, imagenet-a, imagenet-sketch, imagenet-c,
    imagenet-p, or PATH alone: any class folders."""
    corruptions: tuple[str, ...] = ()
    """Corruptions to compute from the test images, or all; of imagenet-c=PATH, those to read."""
    severities: tuple[int, ...] = SEVERITIES
    """Severities of the corruptions, from 1 to 5."""
    corruption_size: int = 224
    """Side in pixels of the images that corruptions are computed on; 224 as in ImageNet-C."""
    baseline: str = ""
    """Model whose errors divide those of the others in the mCE: alexnet (published, for imagenet-c=PATH), the name of
    one of the models, or a JSON file."""
    shared_classes: bool = False
    """Test on the classes that the shifted set and the training data both have, instead of refusing others."""

    name: ClassVar[str] = "robustness"
    least: ClassVar[dict[str, float]] = {**Options.least, "corruption_size": SMALLEST}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.corruptions)
        robustness.check_severities(self.severities)

    @property
    def reads_corruptions(self) -> bool:
        """Whether corruptions are read from ImageNet-C's files; they are computed otherwise."""
        return any(text.startswith("imagenet-c=") for text in self.shifted)

    def chosen_corruptions(self) -> tuple[str, ...]:
        """The corruptions to compute or to read."""
        implied = self.reads_corruptions or not self.shifted
        return check_names(self.corruptions or (("all",) if implied else ()))

    def __call__(self) -> list[Row]:
        """Trains the probes and tests them; prints and writes the results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        if self.chosen_corruptions() and not self.reads_corruptions:
            package()  # raises before the slow part
        dataset = self.read_data()
        require_classes(dataset, ("train", "val"))
        require_classes(dataset, ("train", "test"))
        tests = self._tests(dataset)
        encoders, extract = self.encoders(), self.extractor()
        names = [encoder.name for encoder in encoders]
        baseline = self._baseline(tests, names, dataset)
        for note in (dataset.how, *dataset.notes):
            if note:
                log.info("%s: %s", dataset.name, note)
        found = self._found(dataset, tests, encoders, extract)
        baseline = self._divisors(baseline, tests, names, found)
        rows: list[Row] = []
        for members, values in found.items():
            fusion = self.fuse if len(members) > 1 else ""
            rows += score_rows(tuple(names[i] for i in members), fusion, tests, values, baseline, seed=self.seed)
        details = {"splits": dataset.how, "baseline": dict(baseline.values) if baseline else None}
        path = self.write(dataset, encoders, rows, details=details, began=began)
        from .robustness_page import write_page

        print(table(rows))
        about = self.words(
            f"linear probe trained on {len(dataset.splits['train'])} images, {len(dataset.splits['test'])} clean test "
            f"images ({dataset.how})",
            f"severities {', '.join(map(str, self.severities))}" if self.chosen_corruptions() else "",
        )
        print(write_page(path.with_suffix(".html"), dataset.name, rows, about))
        print(path)
        return rows

    def _tests(self, dataset: Dataset) -> list[ScoredSet]:
        """The clean test images, then all shifted ones."""
        clean = dataset.split("test")
        chosen, severities = self.chosen_corruptions(), robustness.check_severities(self.severities)
        tests = [ScoredSet("clean", clean, clean.labels_N)]
        if not self.reads_corruptions:
            tests += robustness.computed_sets(clean, chosen, severities)
        taken: set[str] = set()
        for text in self.shifted:
            name, read = robustness.read_shifted(text, chosen, severities)
            if name in taken:
                raise UsageError(f"--shifted {text}: {name} is there twice: pass each set once")
            taken.add(name)
            read, labels = robustness.train_labels(name, read, dataset.classes, shared=self.shared_classes)
            tests += robustness.shifted_sets(name, self._limited(read), labels, clean)
        return tests

    def _limited(self, dataset: Dataset) -> Dataset:
        """A shifted set with at most --limit samples, or sequences, per split."""
        if not self.limit or "sequence" not in dataset.target_names:
            return self.limited(dataset)
        splits = {k: robustness.thin_sequences(s, self.limit, seed=self.seed) for k, s in dataset.splits.items()}
        return dataclasses.replace(dataset, splits=splits)

    def _baseline(self, tests: Sequence[ScoredSet], models: Sequence[str], dataset: Dataset) -> Baseline | None:
        """The errors to divide by; those of one of the models come later."""
        if not self.baseline:
            return None
        if all(test.kind == "accuracy" for test in tests):
            raise UsageError(
                f"--baseline {self.baseline} divides the errors under corruptions, and there are none: pass "
                f"--corruptions all, or omit --baseline"
            )
        if self.baseline in models:
            return Baseline(self.baseline, {})
        return robustness.read_baseline(self.baseline, tests, len(dataset.classes))

    def _found(
        self, dataset: Dataset, tests: Sequence[ScoredSet], encoders: Sequence[Encoder], extract: Extractor
    ) -> dict[tuple[int, ...], list[Floats]]:
        """By representation and set: 1 for each image that is classified rightly, or the flip rate of each sequence."""
        sets = self.sets(encoders)
        probes = self._probes(dataset, sets, encoders, extract)
        found: dict[tuple[int, ...], list[Floats]] = {members: [] for members in sets}
        for position, test in enumerate(tests):
            kept: dict[int, dict[int, bytes]] = {}
            features = [self._features(encoder, test, extract, kept) for encoder in encoders]
            for members in sets:
                x_ND = fuse([features[i] for i in members], self.fusion).x_ND
                predicted_N = robustness.predict(probes[members], x_ND, test.among)
                if test.kind == "flips":
                    values = flip_rates(robustness.sequences(test.split, predicted_N), noise="noise" in test.name)
                else:
                    values = (predicted_N == test.truth_N).astype(np.float64)
                found[members].append(values)
                names = " + ".join(encoders[i].name for i in members)
                what = f"{test.name} {test.severity or ''}".strip()
                log.info("%d of %d: %s, %s: %.4f", position + 1, len(tests), names, what, values.mean())
        return found

    def _probes(
        self, dataset: Dataset, sets: Sequence[tuple[int, ...]], encoders: Sequence[Encoder], extract: Extractor
    ) -> dict[tuple[int, ...], Probe]:
        """The linear probe of each representation, trained on clean images."""
        splits = {name: dataset.split(name) for name in ("train", "val")}
        parts = {name: [extract(encoder, split, name) for encoder in encoders] for name, split in splits.items()}
        labels, val_labels = (torch.from_numpy(split.labels_N) for split in splits.values())
        probes = {}
        for members in sets:
            train, val = (fuse([of[i] for i in members], self.fusion).x_ND for of in parts.values())
            probes[members] = choose_probe(train, labels, val, val_labels, device=self.torch_device()).probe
        return probes

    def _features(
        self, encoder: Encoder, test: ScoredSet, extract: Extractor, kept: dict[int, dict[int, bytes]]
    ) -> Representation:
        """The features of a set. kept: by the crop, corrupted files that other models have in common."""
        where = f"{test.name} {test.severity or ''}".strip()
        if not (test.computed or test.whole):
            return extract(encoder, test.split, where)
        split = test.split
        if test.computed:
            resize = round(self.corruption_size * extract.side(encoder) / encoder.size)
            options = (self.seed, self.corruption_size, resize, extract.filter)
            files = kept.setdefault(resize, {}) if len(self.models) > 1 else None
            images = Corrupted(split.images, test.name, test.severity, *options, files)
            split = Split(images, split.labels_N, None, split.names)
        part = dataclasses.replace(extract, resize=0)(encoder, split, where)
        # Models with other crops corrupt the same images in the same order.
        return part._replace(identity=f"{test.split.images.digest(extract.folder)} {where}")

    def _divisors(
        self, baseline: Baseline | None, tests: Sequence[ScoredSet], names: Sequence[str], found: _Found
    ) -> Baseline | None:
        """The baseline, with the errors that were found if it is one of the models."""
        if baseline is None or baseline.values:
            return baseline
        errors = error_rates(tests, found[(names.index(baseline.name),)])
        return Baseline(baseline.name, {key: float(errors_N.mean()) for key, errors_N in errors.items()})
