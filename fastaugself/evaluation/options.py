"""Options common to all commands of `fastaugself eval`: models, data, and where to write results."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from tyro.conf import Positional, arg

from ..distributed import DeviceName, resolve_device
from ..errors import UsageError
from .cache import default_folder
from .datasets import read_dataset
from .datasets.masks import MaskData
from .encoder import Encoder
from .encoders import load_encoder
from .features import Extractor
from .fusion import Fusion, Representation
from .protocols import Features, Protocol
from .results import Row, write_result
from .run import evaluate
from .splits import Dataset, thin, with_val

FUSED = {
    "concat": "features of several models concatenated", "mean": "features of several models averaged",
    "add": "features of several models added", "none": "each model alone",
}  # fmt: skip


@dataclass(frozen=True)
class Models:
    """The models to evaluate."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL ...")]
    """Models: run folders, exports, timm:NAME, torchvision:NAME, random:RUN_OR_NAME. LABEL@MODEL sets a name."""

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("no model given: pass a run folder, an export, timm:NAME, torchvision:NAME or random:NAME")


@dataclass(frozen=True)
class _Source(Models):
    data: Path
    """A folder of class folders, a .beton file, or the files of the data set given with --dataset."""
    dataset: str = ""
    """Name of the paper's data set at --data (listed by `fastaugself eval datasets`); default: folders or .beton."""
    fuse: Literal["concat", "mean", "add", "none"] = "concat"
    """How to combine the features of several models (each model is also evaluated alone); none: do not combine."""


@dataclass(frozen=True)
class Encoding:
    """Which images the models see, where they run, and where results go: for one protocol or a suite of them."""

    size: int = 0
    """Side of the input images in pixels; 0 = each model's own."""
    resize: int = 0
    """Shorter side in pixels after resizing, before the central crop; 0 = the input size, as published."""
    limit: int = 0
    """Maximum number of samples per split, drawn at random and stratified by class; 0 = all."""
    seed: int = 0
    """Random seed of the validation split, the episodes and the bootstrap."""
    out: Path = Path("results/eval")
    """Folder of the results: one JSON file per evaluation, and results.csv and results.md with all of them."""
    cache: Path | None = None
    """Folder of the feature cache; default: $FASTAUGSELF_CACHE, ~/.cache/fastaugself, or a folder in /tmp."""
    device: DeviceName = "auto"
    """Device to run the models on."""
    workers: int = 0
    """Decoding threads; 0 = one per core."""
    batch_size: int = 64
    """Images per forward pass."""


@dataclass(frozen=True)
class Options(Encoding, _Source):
    """Options of every protocol."""

    resplit: bool = False
    """Merge train and the data set's own validation split, and draw 10 % of each class as the new validation split."""
    labelled: int = 0
    """Maximum number of samples to learn from, four fifths of them train and one fifth val (at least one of each class
    in both); 0 = all. VTAB-1k: 1000."""

    name: ClassVar[str] = ""
    least: ClassVar[dict[str, float]] = {
        "limit": 0,
        "labelled": 0,
        "size": 0,
        "resize": 0,
        "workers": 0,
        "batch_size": 1,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, least in self.least.items():
            if not getattr(self, option) >= least:  # nor NaN
                raise UsageError(f"--{option.replace('_', '-')} must be at least {least}, got {getattr(self, option)}")

    @property
    def title(self) -> str:
        """The protocol's name in results."""
        return self.name

    def torch_device(self) -> torch.device:
        """The device to run the models on. Raises UsageError for CUDA without a CUDA device."""
        return resolve_device(self.device)

    def extractor(self) -> Extractor:
        """A feature extractor with these options and its cache."""
        folder = self.cache or default_folder()
        return Extractor(self.torch_device(), self.resize, folder, self.batch_size, self.workers)

    def encoders(self) -> list[Encoder]:
        """Loads the models; equal names get a number, as in `name#2`."""
        found: list[Encoder] = []
        for spec in self.models:
            encoder = load_encoder(spec, device="cpu", size=self.size or None, seed=self.seed)
            same = sum(e.name == encoder.name or e.name.startswith(encoder.name + "#") for e in found)
            if same:
                encoder.name = f"{encoder.name}#{same + 1}"
            found.append(encoder)
        return found

    @property
    def fusion(self) -> Fusion:
        """The kind of fusion; for single models any kind will do."""
        return "concat" if self.fuse == "none" else self.fuse

    def fuses(self, encoders: Sequence[Encoder]) -> bool:
        """Whether the models are also evaluated together."""
        return self.fuse != "none" and len(encoders) > 1

    def sets(self, encoders: Sequence[Encoder]) -> list[tuple[int, ...]]:
        """Indices of the models of each representation: each model alone, then all fused."""
        alone: list[tuple[int, ...]] = [(i,) for i in range(len(encoders))]
        return [*alone, tuple(range(len(encoders)))] if self.fuses(encoders) else alone

    def read_data(self) -> Dataset:
        """Reads the data set, with a validation split and at most --limit samples per split."""
        return self.limited(with_val(read_dataset(self.data, self.dataset), seed=self.seed, resplit=self.resplit))

    def limited(self, dataset: Dataset) -> Dataset:
        """The data set with at most --limit samples per split, and --labelled of train and val."""
        val = max(1, self.labelled // 5)
        few = {"train": max(1, self.labelled - val), "val": val} if self.labelled else {}
        most = {name: min(filter(None, (self.limit, few.get(name, 0))), default=0) for name in dataset.splits}
        splits = {
            name: split.take(thin(split.labels_N, most[name], seed=self.seed)) if 0 < most[name] < len(split) else split
            for name, split in dataset.splits.items()
        }
        said = [f"at most {self.limit} of each"] if self.limit else []
        said += [f"{' and '.join(f'{count} of {name}' for name, count in few.items())}"] if few else []
        return dataclasses.replace(dataset, splits=splits, how="; ".join([dataset.how, *said]))

    def described(self) -> dict[str, Any]:
        """The options that determine a result, models included, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("out", "cache", "device", "workers", "batch_size", "seed"):
            values.pop(name)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def words(self, *parts: str) -> str:
        """The options that determine a result, for the foot of a page. parts: those of the protocol."""
        found = [
            *parts,
            f"at most {self.limit} samples per split" if self.limit else "",
            f"{self.labelled} samples to learn from" if self.labelled else "",
            f"input of {self.size} × {self.size} px" if self.size else "input size of each model's own",
            f"shorter side resized to {self.resize} px, then the central square" if self.resize else "",
            "validation split drawn anew" if self.resplit else "",
            FUSED[self.fuse] if len(self.models) > 1 else "",
            f"seed {self.seed}",
        ]
        text = "; ".join(part for part in found if part)
        return text[:1].upper() + text[1:] + "."

    def write(
        self,
        dataset: Dataset | MaskData,
        encoders: Sequence[Encoder],
        rows: Sequence[Row],
        *,
        details: dict[str, Any],
        began: float,
        adds: dict[str, float] | None = None,
    ) -> Path:
        """Writes the result to --out, and returns the path of its JSON file.

        details: further entries of the file. began: `time.perf_counter()` at the start. adds: see `run.Result`.
        """
        return write_result(
            self.out,
            protocol=self.title,
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
    """Base class of the protocols on features: each model alone, all models fused, and all but one fused."""

    needs: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def splits(self, dataset: Dataset) -> tuple[str, ...]:
        """Names of the splits whose features the protocol needs."""
        return self.needs

    def protocol(self, dataset: Dataset, extract: Extractor, encoders: Sequence[Encoder]) -> Protocol:
        """The protocol: a function from the features by split to an `Outcome`."""
        raise NotImplementedError

    def parts(self, dataset: Dataset, extract: Extractor, encoder: Encoder) -> dict[str, Representation]:
        """Extracts the features of one model, by split."""
        return {name: extract(encoder, dataset.split(name), name) for name in self.splits(dataset)}

    def finish(self, dataset: Dataset, rows: Sequence[Row], features: Sequence[Features], page: Path) -> None:
        """Writes further outputs from the features of each row. page: path for a page, named like the result file."""

    def __call__(self) -> list[Row]:
        """Runs the protocol; prints and writes the results."""
        return evaluate(self)
