"""The photos of the checks during training: which vote, which are classified, and their labels.

Shape suffixes: N samples, C classes.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.check_sets import CheckPhotos
from ..config.schema import Pretrain
from ..data.classes import match_classes
from ..data.dataset import Paths
from ..data.divide import cut_by_class
from ..data.loader import Loader
from ..data.order import sample_at
from ..distributed import World
from ..errors import UsageError
from ..probes.extract import BATCH

log = logging.getLogger(__name__)

BANK = 20_000  # maximum number of samples for k-NN and probes, a random subset
HELD_OUT = 0.2  # of each class of a collection without splits is classified by the rest

Ids = NDArray[np.int64]


class Part(NamedTuple):
    """Samples of a data set in the order in which their features are extracted.

    labels_N: class numbers of the bank's, of all samples of the data set by id; -1 without.
    """

    loader: Loader
    ids_N: Ids
    labels_N: Tensor


class CheckData(NamedTuple):
    """The photos of one check.

    name: "" for that on `--data.val`. bank: those that vote. queries: those that are classified. labelled: whether both
    have labels. whole: whether the scores without labels are of both, because they are one collection.
    """

    name: str
    bank: Part
    queries: Part
    labelled: bool
    whole: bool

    @property
    def prefix(self) -> str:
        """What the names of its scores begin with."""
        return f"{self.name}/" if self.name else ""

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """Of the samples of all its files."""
        return self.bank.loader.fingerprint, self.queries.loader.fingerprint

    def close(self) -> None:
        """Closes the data files."""
        self.bank.loader.close()
        self.queries.loader.close()


def open_checks(config: Pretrain, world: World) -> list[CheckData]:
    """Opens the photos of all checks: of `--data.val`, then those of `--log.check`.

    Raises UsageError for photos whose classes cannot be matched, and RunError for damaged files.
    """
    opened: list[CheckData] = []
    try:
        if config.data.val is not None:
            if config.data.train is None:
                raise UsageError("a check needs training and validation photos: pass --data.train and --data.val")
            opened.append(_pair("", config.data.train, config.data.val, ("--data.train", "--data.val"), config, world))
        for photos in config.log.check_photos:
            opened.append(_open(photos, config, world))
    except BaseException:
        for data in opened:
            data.close()
        raise
    return opened


def _open(photos: CheckPhotos, config: Pretrain, world: World) -> CheckData:
    option = f"--log.check {photos.name}"
    if photos.val is None:
        return _collection(photos.name, photos.train, config, world)
    return _pair(photos.name, photos.train, photos.val, (f"{option} TRAIN", f"{option} VAL"), config, world)


def _loader(paths: Any, config: Pretrain, world: World) -> Loader:
    settings = config.data
    # Sequential and without `drop_last`, so that any number of photos opens; the ids are chosen by the parts.
    return Loader(
        paths,
        batch_size=BATCH,
        source="native",
        order="sequential",
        drop_last=False,
        workers=settings.workers,
        max_corrupt=settings.max_corrupt,
        device=world.device,
    )


def _pair(name: str, train: Paths, val: Paths, options: tuple[str, str], config: Pretrain, world: World) -> CheckData:
    """Training photos that vote, at most `BANK`, and validation photos that are classified."""
    loaders: list[Loader] = []
    try:
        loaders += [_loader(train, config, world)]
        loaders += [_loader(val, config, world)]
        bank, queries = loaders
        match = match_classes(
            bank.known_classes, queries.known_classes, names=(bank.name, queries.name), options=options
        )
        if match.assumed:
            log.warning("%s", match.assumed)
        drawn_N, asked_N = (
            _drawn(np.arange(loader.num_samples), limit) for loader, limit in ((bank, BANK), (queries, None))
        )
        labelled = bool((bank.labels_N[drawn_N] >= 0).any() and queries.known_classes.used)
        _tell(name, loaders, labelled)
        numbers_C = torch.from_numpy(match.numbers_C)
        labels_N = torch.from_numpy(queries.labels_N)
        labels_N = torch.where(labels_N >= 0, numbers_C[labels_N.clamp(min=0)], -1) if len(numbers_C) else labels_N
        return CheckData(
            name,
            Part(bank, drawn_N, torch.from_numpy(bank.labels_N).to(world.device)),
            Part(queries, asked_N, labels_N.to(world.device)),
            labelled,
            whole=False,
        )
    except BaseException:
        for loader in loaders:
            loader.close()
        raise


def _collection(name: str, path: Paths, config: Pretrain, world: World) -> CheckData:
    """One collection, of which `HELD_OUT` of each class is classified by the rest, at most `BANK`."""
    loader = _loader(path, config, world)
    labels_N = loader.labels_N
    known_N = np.flatnonzero(labels_N >= 0)
    kept_N, held_out_N = cut_by_class(labels_N[known_N], HELD_OUT, seed=0) if len(known_N) else (known_N, known_N)
    labelled = len(held_out_N) > 0 and len(np.unique(labels_N[known_N])) > 1
    _tell(name, [loader], labelled)
    labels = torch.from_numpy(labels_N).to(world.device)
    if not labelled:
        none = Part(loader, np.empty(0, np.int64), labels)
        return CheckData(name, none, Part(loader, _drawn(np.arange(len(labels_N)), BANK), labels), labelled, whole=True)
    bank_N, queries_N = (_drawn(known_N[part], BANK) for part in (kept_N, held_out_N))
    return CheckData(name, Part(loader, bank_N, labels), Part(loader, queries_N, labels), labelled, whole=True)


def _drawn(ids_N: Ids, limit: int | None) -> Ids:
    """At most `limit` of the ids, drawn at random, in random order: the first of them are a random subset, too."""
    count = len(ids_N) if limit is None else min(limit, len(ids_N))
    return ids_N[sample_at(np.arange(count), num_samples=len(ids_N), seed=0, epoch=0)]


def _tell(name: str, loaders: Sequence[Loader], labelled: bool) -> None:
    """Logs which photos or scores are left out for want of labels."""
    if name and not labelled:
        text = "--log.check %s: %s has no two labelled classes, so it has no k-NN and linear scores, only those without"
        log.warning(text + " labels", name, loaders[-1].name)
    for loader in loaders if labelled else ():
        if without := int((loader.labels_N < 0).sum()):
            text = "%s: %d of %d photos have no label and are left out of k-NN and linear"
            log.warning(text, loader.name, without, loader.num_samples)
