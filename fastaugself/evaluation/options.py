"""What all commands of `fastaugself eval` share: which models, which data, where the results go.

Shape suffixes: N samples, D features.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from tyro.conf import Positional, arg

from ..distributed import DeviceName, resolve_device
from ..errors import UsageError
from ..files import check_outputs
from .cache import default_folder
from .datasets import read_dataset
from .encoders import Encoder, load_encoder
from .features import Extractor
from .fusion import Fusion, Representation, fuse
from .protocols import Features, Outcome, Protocol
from .results import Row, number, table, write_result
from .splits import Dataset, thin, with_val

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class Options:
    """Options of every protocol."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL ...")]
    """Models: run folders, exports, timm:NAME, torchvision:NAME, random:RUN_OR_NAME; LABEL@MODEL names one."""
    data: Path
    """Folders of class folders, a .beton file, or the files of the data set that --dataset names."""
    dataset: str = ""
    """Name of a data set of the papers (`fastaugself eval datasets` lists them); default: what is at --data."""
    fuse: Literal["concat", "mean", "add", "none"] = "concat"
    """How several models become one representation, beside each alone; none: only each alone."""
    size: int = 0
    """Side of the input in pixels; 0 = each model's own."""
    resize: int = 0
    """Shorter side before the central crop; 0 = the side of the input, as published."""
    resplit: bool = False
    """Draw the validation split anew from train and the data set's own: of each class 10 %."""
    limit: int = 0
    """At most this many samples of each split, drawn by the seed, of every class in proportion; 0 = all."""
    seed: int = 0
    """Of everything that is drawn: validation split, episodes, intervals."""
    out: Path = Path("results/eval")
    """Folder of the results: a JSON file each, results.csv and results.md of all."""
    cache: Path | None = None
    """Folder of kept features; default: $FASTAUGSELF_CACHE or ~/.cache/fastaugself."""
    device: DeviceName = "auto"
    """Where models run."""
    workers: int = 0
    """Decoding threads; 0 = one a core."""
    batch_size: int = 64
    """Images that go through a model at a time."""

    name: ClassVar[str] = ""
    least: ClassVar[dict[str, float]] = {"limit": 0, "size": 0, "resize": 0, "workers": 0, "batch_size": 1}

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("no model given: pass a run folder, an export, timm:NAME, torchvision:NAME or random:NAME")
        for option, least in self.least.items():
            if not getattr(self, option) >= least:  # nor NaN
                raise UsageError(f"--{option.replace('_', '-')} must be at least {least}, got {getattr(self, option)}")

    def torch_device(self) -> torch.device:
        """Where models run; UsageError for CUDA where there is none."""
        return resolve_device(self.device)

    def extractor(self) -> Extractor:
        folder = self.cache or default_folder()
        return Extractor(self.torch_device(), self.resize, folder, self.batch_size, self.workers)

    def encoders(self) -> list[Encoder]:
        """The models, under names that differ."""
        found: list[Encoder] = []
        for spec in self.models:
            encoder = load_encoder(spec, size=self.size or None, seed=self.seed)
            same = sum(e.name == encoder.name or e.name.startswith(encoder.name + "#") for e in found)
            found.append(dataclasses.replace(encoder, name=f"{encoder.name}#{same + 1}") if same else encoder)
        return found

    def read_data(self) -> Dataset:
        """The data set, with a validation split and no more samples than the limit."""
        dataset = with_val(read_dataset(self.data, self.dataset), seed=self.seed, anew=self.resplit)
        if not self.limit:
            return dataset
        splits = {
            name: split.take(thin(split.labels_N, self.limit, seed=self.seed)) if len(split) > self.limit else split
            for name, split in dataset.splits.items()
        }
        return dataclasses.replace(dataset, splits=splits, how=f"{dataset.how}; at most {self.limit} of each")

    def described(self) -> dict[str, Any]:
        """The options that a result depends on, and its models, as JSON values."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("out", "cache", "device", "workers", "batch_size", "seed"):
            own.pop(name)
        return {name: str(value) if isinstance(value, Path) else value for name, value in own.items()}

    def write(
        self,
        dataset: Dataset,
        encoders: Sequence[Encoder],
        rows: Sequence[Row],
        *,
        details: dict[str, Any],
        began: float,
        adds: dict[str, float] | None = None,
    ) -> Path:
        """Writes the result to `--out`, and gives the path of its JSON file. began: of `time.perf_counter`."""
        return write_result(
            self.out,
            protocol=self.name,
            data=dataset.name,
            rows=rows,
            seed=self.seed,
            options={**self.described(), "digests": [encoder.digest for encoder in encoders]},
            adds=adds,
            details=details,
            device=self.torch_device(),
            seconds=time.perf_counter() - began,
        )


@dataclass(frozen=True)
class FeatureOptions(Options):
    """A protocol that reads features: of each model alone, of all fused, and of all but each."""

    needs: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def splits(self, dataset: Dataset) -> tuple[str, ...]:
        """Splits whose features are needed."""
        return self.needs

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        raise NotImplementedError

    def parts(self, dataset: Dataset, extract: Extractor, encoder: Encoder) -> dict[str, Representation]:
        """The features of one model, by split."""
        return {name: extract(encoder, dataset.split(name), name) for name in self.splits(dataset)}

    def finish(self, dataset: Dataset, rows: Sequence[Row], features: Sequence[Features]) -> None:
        """What else comes of the features of each row, such as a page."""

    def __call__(self) -> list[Row]:
        """Runs the protocol, prints and writes its results."""
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        encoders, dataset, extract = self.encoders(), self.read_data(), self.extractor()
        for note in (dataset.how, *dataset.notes):
            if note:
                log.info("%s: %s", dataset.name, note)
        protocol = self.protocol(dataset, extract, encoders)
        parts = [self.parts(dataset, extract, encoder) for encoder in encoders]
        found = judge(protocol, parts, None if self.fuse == "none" else self.fuse)
        sizes = {name: len(dataset.splits[name]) for name in self.splits(dataset)}
        details = {"splits": dataset.how, "sizes": sizes}
        path = self.write(dataset, encoders, found.rows, adds=found.adds, details=details, began=began)
        print(table(found.rows))
        for name, value in found.adds.items():
            print(f"{name} adds {value:+.4f} to the others")
        self.finish(dataset, found.rows, found.features)
        print(path)
        return found.rows


@dataclass(frozen=True)
class Judged:
    """adds: by model, the score of the fusion minus that of the fusion without it."""

    rows: list[Row]
    features: list[dict[str, Tensor]]
    adds: dict[str, float]


def judge(protocol: Protocol, parts: Sequence[dict[str, Representation]], how: Fusion | None) -> Judged:
    """The protocol on each representation alone and, where `how` is given, on all fused and on all but each."""
    count = len(parts)
    subsets: list[tuple[int, ...]] = [(i,) for i in range(count)]
    everything = tuple(range(count))
    if how and count > 1:
        without = [tuple(j for j in everything if j != i) for i in everything]
        subsets += [*(without if count > 2 else []), everything]
        for split in parts[0]:  # refused before anything is fitted
            fuse([part[split] for part in parts], how)
    rows: list[Row] = []
    features: list[dict[str, Tensor]] = []
    by_subset: dict[tuple[int, ...], float] = {}
    for subset in subsets:
        fused = {split: fuse([parts[i][split] for i in subset], how or "concat") for split in parts[0]}
        x = {split: part.x_ND for split, part in fused.items()}
        outcome: Outcome = protocol(x)
        names = tuple(next(iter(parts[i].values())).name for i in subset)
        fusion = (how or "") if len(subset) > 1 else ""
        rows.append(Row(names, fusion, outcome.metric, outcome.score, outcome.samples, outcome.details))
        features.append(x)
        by_subset[subset] = outcome.score.value
        found = f"{rows[-1].label} {outcome.metric} {number(outcome.score.value)}"
        log.info("%d of %d: %s", len(rows), len(subsets), found)
    adds = {}
    if how and count > 1:
        for i in everything:
            rest = tuple(j for j in everything if j != i)
            adds[next(iter(parts[i].values())).name] = by_subset[everything] - by_subset[rest]
    return Judged(rows, features, adds)
