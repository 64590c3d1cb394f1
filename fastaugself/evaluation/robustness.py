"""Robustness: a linear probe trained on clean images and tested on shifted ones.

Shape suffixes: N images, D features, K classes, C corruptions, S severities.
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..files import read_text
from ..models.beside import import_timm
from ..probes.linear import Probe
from ..probes.robustness import ALEXNET, SEVERITIES
from .datasets import read_dataset, readers
from .datasets.shifted import imagenet_c
from .splits import Dataset, Labels, Split

IMAGENET_CLASSES = 1000


class ScoredSet(NamedTuple):
    """Images to test on.

    name: for rows. split: the images. truth_N: their classes of the training data. kind: accuracy; corruption, of
    which there is a set for each severity; or flips, of the frames of sequences. severity: of a corruption. among:
    classes that are chosen among; None: all. whole: the encoder sees the whole image, which is cropped already.
    computed: the corruption is computed from the images.
    """

    name: str
    split: Split
    truth_N: Labels
    kind: Literal["accuracy", "corruption", "flips"] = "accuracy"
    severity: int = 0
    among: tuple[int, ...] | None = None
    whole: bool = False
    computed: bool = False

    @property
    def key(self) -> str:
        """Name of the corruption or perturbation in a baseline."""
        return f"imagenet-p/{self.name}" if self.kind == "flips" else self.name


def computed_sets(clean: Split, names: Sequence[str], severities: Sequence[int]) -> list[ScoredSet]:
    """The sets of corruptions that are computed from clean test images."""
    return [
        ScoredSet(name, clean, clean.labels_N, "corruption", severity, computed=True)
        for name in names
        for severity in severities
    ]


def shifted_sets(name: str, dataset: Dataset, labels: Labels, clean: Split) -> list[ScoredSet]:
    """The sets of a shifted data set; before one that has only some classes, the clean images of these.

    labels: from `train_labels`. clean: the clean test images.
    """
    if dataset.name == "imagenet-p":
        return [ScoredSet(k, s, labels[s.labels_N], "flips", whole=True) for k, s in dataset.splits.items()]
    if dataset.name == "imagenet-c":
        parts = {key.rpartition("-")[::2]: split for key, split in dataset.splits.items()}
        return [ScoredSet(k, s, labels[s.labels_N], "corruption", int(v), whole=True) for (k, v), s in parts.items()]
    split = next(dataset.splits[part] for part in ("test", "all") if part in dataset.splits)
    truth_N = labels[split.labels_N]
    among = tuple(np.unique(truth_N).tolist())
    if len(among) == len(np.unique(clean.labels_N)):
        return [ScoredSet(name, split, truth_N)]
    some = clean.take(np.flatnonzero(np.isin(clean.labels_N, among)))
    return [
        ScoredSet(f"clean, classes of {name}", some, some.labels_N, among=among),
        ScoredSet(name, split, truth_N, among=among),
    ]


def read_shifted(text: str, corruptions: Sequence[str], severities: Sequence[int]) -> tuple[str, Dataset]:
    """The name and the data set of `NAME=PATH` (or `PATH`: folders of classes, named after the folder).

    corruptions, severities: of ImageNet-C. Raises UsageError for an unknown name and for files that are not laid out
    as expected.
    """
    name, given, path = text.partition("=")
    if not given or Path(text).exists():
        name, path = "", text
    if not path:
        raise UsageError(
            f"--shifted {text}: nothing follows =; pass --shifted NAME=PATH, such as imagenet-r=imagenet-r"
        )
    known = readers()
    if name and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}={path}?" if near else f"known: {', '.join(known)}"
        raise UsageError(f"--shifted {text}: there is no data set {name}; {hint}")
    if not Path(path).exists():
        raise UsageError(f"--shifted {text}: {path}: no such file or folder")
    if name == "imagenet-c":
        return name, imagenet_c(Path(path), corruptions, severities)
    dataset = read_dataset(Path(path), name)
    return name if name not in ("", "folders", "beton") else dataset.name, dataset


def train_labels(name: str, dataset: Dataset, classes: Sequence[str], *, shared: bool) -> tuple[Dataset, Labels]:
    """The class of the training data for each class of a shifted set, by name.

    Returns the set and int64 [K]. classes: of the training data. shared: leave out the samples of classes that the
    training data lacks, instead of refusing them. Raises UsageError for such a class, and if there is none in common.
    """
    named = _imagenet_names(dataset, classes)
    index = {kind: i for i, kind in enumerate(classes)}
    labels = np.array([index.get(kind, -1) for kind in named], np.int64)
    used = sorted({int(label) for split in dataset.splits.values() for label in np.unique(split.labels_N)})
    unlabelled = -1 in used
    unknown = [named[label] for label in used if label >= 0 and labels[label] < 0]
    known = len(used) - len(unknown) - unlabelled
    if unlabelled:
        raise UsageError(f"{name} has samples without a class: expected one folder for each class")
    if not known:
        raise UsageError(
            f"{name} has no class of the training data: its classes are {unknown[0]}, ..., those of the training data "
            f"{classes[0]}, ...: pass --data with class folders of the same names"
        )
    if unknown and not shared:
        raise UsageError(
            f"{name}: class {unknown[0]} ({len(unknown)} in all) is not a class of the training data: pass "
            f"--shared-classes to test on the {known} classes that both have"
        )
    if unknown:
        splits = {
            part: split.take(np.flatnonzero(labels[split.labels_N] >= 0)) for part, split in dataset.splits.items()
        }
        dataset = dataclasses.replace(dataset, splits=splits)
    return dataset, labels


def _imagenet_names(dataset: Dataset, classes: Sequence[str]) -> Sequence[str]:
    """The class names of a set; of ImageNet-V2, whose folders are positions, the WordNet ids at these positions."""
    if dataset.name != "imagenet-v2":
        return dataset.classes
    ids = sorted(classes) if len(classes) == IMAGENET_CLASSES else _wordnet_ids()
    return [ids[int(name)] for name in dataset.classes]


def _wordnet_ids() -> list[str]:
    """The sorted WordNet ids of ImageNet's 1,000 classes, from timm."""
    try:
        ids: list[str] = import_timm().data.ImageNetInfo("imagenet-1k").label_names()
    except Exception as error:
        raise UsageError(
            f"imagenet-v2 numbers ImageNet's 1,000 classes, and --data has only some of them: their list is in timm, "
            f"which cannot be imported ({error}): pip install --no-deps timm"
        ) from None
    return ids


def predict(probe: Probe, x_ND: Tensor, among: Sequence[int] | None = None) -> Labels:
    """The most likely class of each sample, int64 [N]. among: classes to choose from, default all.

    On ImageNet-R and -A, which have 200 of ImageNet's classes, the choice is among these 200, as published.
    """
    logits_NK = probe.logits(x_ND)
    if among is None:
        return logits_NK.argmax(1).numpy()
    chosen = torch.tensor(sorted(among))
    return chosen[logits_NK[:, chosen].argmax(1)].numpy()


class Baseline(NamedTuple):
    """Values to divide errors by: name, for rows, and the error by corruption (or flip rate by perturbation)."""

    name: str
    values: Mapping[str, float]


def read_baseline(text: str, tests: Sequence[ScoredSet], classes: int) -> Baseline:
    """The baseline `alexnet`, or that of a JSON file: the error of each corruption, a mean over severities.

    tests: whose errors are divided. classes: number of classes of the training data. Raises UsageError for anything
    else, and if the file lacks a corruption.
    """
    corrupted = [test for test in tests if test.kind == "corruption"]
    if text == "alexnet":
        instead = "pass --baseline with one of the models, or a JSON file with the error of each corruption"
        if not corrupted or classes != IMAGENET_CLASSES or any(test.computed for test in corrupted):
            raise UsageError(
                f"--baseline alexnet: AlexNet's errors are published for the files of ImageNet-C and all 1,000 "
                f"classes, and other images or classes have others; {instead}"
            )
        severities = sorted({test.severity for test in corrupted})
        if tuple(severities) != SEVERITIES:
            raise UsageError(
                f"--baseline alexnet: AlexNet's errors are published as means over severities 1 to 5, got "
                f"{' '.join(map(str, severities))}: pass --severities 1 2 3 4 5"
            )
        return Baseline("alexnet", ALEXNET)
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"--baseline {text} is neither alexnet, nor one of the models, nor a file: pass --baseline with the name "
            f'of a model, or a JSON file such as {{"fog": 0.819}}'
        )
    try:
        values = {str(name): float(value) for name, value in json.loads(read_text(path)).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"--baseline {path} is not a JSON file of numbers by name ({error})") from None
    for name in dict.fromkeys(test.key for test in tests if test.kind != "accuracy"):
        if name not in values:
            raise UsageError(f"--baseline {path} lacks {name}: add it, as an error from 0 to 1")
        if not 0 < values[name] <= 1:
            raise UsageError(f"--baseline {path}: {name} is {values[name]:g}, expected an error above 0 and at most 1")
    return Baseline(path.stem, values)


def sequences(split: Split, predicted_N: Labels) -> list[Labels]:
    """The predictions of the frames of each sequence, in order."""
    if split.targets_NT is None:
        raise ValueError("expected a split with columns sequence and frame")
    starts = np.flatnonzero(np.diff(split.targets_NT[:, 0])) + 1
    return np.split(predicted_N, starts)


def thin_sequences(split: Split, limit: int, *, seed: int) -> Split:
    """At most `limit` random sequences with all of their frames."""
    if split.targets_NT is None:
        raise ValueError("expected a split with columns sequence and frame")
    sequence_N: NDArray[np.float64] = split.targets_NT[:, 0]
    every = np.unique(sequence_N)
    chosen = np.sort(np.random.default_rng(seed).permutation(every)[:limit])
    return split.take(np.flatnonzero(np.isin(sequence_N, chosen)))


def check_severities(severities: Sequence[int]) -> tuple[int, ...]:
    """The severities in order. Raises UsageError for one that is not from 1 to 5, or for none."""
    wrong = [value for value in severities if value not in SEVERITIES]
    if wrong or not severities:
        raise UsageError(
            f"--severities takes numbers from 1 to 5, got {wrong[0] if wrong else 'none'}: pass --severities 1 2 3 4 5"
        )
    return tuple(sorted(set(severities)))
