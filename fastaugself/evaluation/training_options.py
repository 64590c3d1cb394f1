"""Options of the protocols that train on random crops, and what they have in common."""

import dataclasses
import logging
import re
import time
import zlib
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from ..distributed import World, joined
from ..errors import UsageError
from ..files import check_outputs, utf8
from ..training.logs import own_logging, start_logging
from ..training.setup import activation_dtype
from ..training.startup import only_trainer
from .cache import key_of
from .crops import TrainingCrops
from .datasets import read_dataset
from .encoder import Encoder
from .options import Options
from .pixels import Filter
from .results import Row, table
from .splits import Dataset, Split, require_classes, with_val
from .top_k import RESIZE, CentreCrops
from .training_loop import Checkpoints

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class TrainingOptions(Options):
    """Options of the protocols that train on random crops; under torchrun, every process takes its share."""

    fuse: Annotated[Literal["none"], tyro.conf.Suppress] = "none"
    resize: int = 0
    """Shorter side of test photos in pixels after resizing, before the central crop; 0 = 256/224 of the input size, as
    published."""
    epochs: int = 0
    """Epochs over the training photos; 0 = the preset's."""
    train_batch: int = 0
    """Photos per optimizer step, over all processes; 0 = the preset's. Learning rates are scaled linearly with it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision: dtype of the encoder's activations (weights and classifiers stay fp32); auto: bf16 on CUDA, fp32
    on the CPU."""
    # torchrun on Python 3.11 parses --run as an abbreviation of its own option --run-path, hence the second name.
    run: Annotated[Path | None, tyro.conf.arg(aliases=("--run-dir",))] = None
    """Folder of the checkpoints from which the same command resumes; default: a folder in --out named by protocol,
    data, model and options."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints."""

    preset: str = ""
    replaces: ClassVar[tuple[str, ...]] = ("epochs", "train_batch")
    least: ClassVar[dict[str, float]] = {**Options.least, "epochs": 0, "train_batch": 0, "checkpoint_minutes": 0}

    def __call__(self) -> list[Row]:
        """Trains and tests every model; prints and writes the results on rank 0."""
        with own_logging(), joined(self.device) as world:
            start_logging(None, is_main=world.is_main)
            return self._evaluate(world)

    def _evaluate(self, world: World) -> list[Row]:
        began = time.perf_counter()
        check_outputs(self.out / "results.csv")
        encoders = self.encoders()
        for encoder in encoders:
            self.check(encoder)
        dataset = self.read_data()
        require_classes(dataset, ("train", "test"))
        for note in (dataset.how, *dataset.notes):
            if note:
                log.info("%s: %s", dataset.name, note)
        found: list[Row] = []
        for encoder in encoders:
            identity = self._identity(dataset, encoder)
            name = _file_name(f"{self.name}-{dataset.name}-{encoder.name}-{key_of(repr(identity))[:8]}")
            run = self.out / "runs" / name if self.run is None else self.run
            if self.run is not None and len(encoders) > 1:
                run = self.run / _file_name(encoder.name)
            with only_trainer(run):
                checkpoints = Checkpoints(run, identity, world, minutes=self.checkpoint_minutes)
                found += self.evaluate(dataset, encoder, world, checkpoints)
            encoder.module.to("cpu")
        if world.is_main:
            sizes = {name: len(split) for name, split in dataset.splits.items()}
            details = {"splits": dataset.how, "sizes": sizes}
            path = self.write(dataset, encoders, found, details=details, began=began)
            print(table(found))
            print(path)
        return found

    def refuse_resplit(self, why: str) -> None:
        """Raises UsageError for --resplit where no validation split is used."""
        if self.resplit:
            raise UsageError(f"--resplit draws a validation split, and {why}: leave it out")

    @property
    def title(self) -> str:
        """The protocol, its preset, and the numbers that options replace: `linear-sgd moco, epochs 15, lr 1 3`."""
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name in self.replaces if getattr(self, name) != fields[name]}
        changed = (f"{name.replace('_', ' ')} {_text(value)}" for name, value in given.items())
        return ", ".join([f"{self.name} {self.preset}", *changed])

    def check(self, encoder: Encoder) -> None:
        """Raises UsageError for a model that the protocol cannot train, before the data is read."""

    @abstractmethod
    def evaluate(self, dataset: Dataset, encoder: Encoder, world: World, checkpoints: Checkpoints) -> list[Row]:
        """Trains and tests one model."""

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """The numbers of the preset with the options that replace them, by option."""

    def read_undivided(self) -> Dataset:
        """Reads the data, with the validation split that they have as a part of train: nothing is chosen on it."""
        dataset = read_dataset(self.data, self.dataset)
        if self.labelled:  # some of train and some of val, as for all protocols
            return _undivided(self.limited(with_val(dataset, seed=self.seed)))
        return self.limited(_undivided(dataset))

    def crops(self, split: Split, encoder: Encoder, world: World, *, batch_size: int, forward: int) -> TrainingCrops:
        """The crops of a split for an encoder."""
        return TrainingCrops(
            split, world, batch_size, forward, encoder.size, encoder.mean, encoder.std, seed=self.seed,
            dtype=activation_dtype(self.precision, world.device), workers=self.workers,
        )  # fmt: skip

    def centre(self, encoder: Encoder, filter: Filter) -> CentreCrops:
        """The preparation of test photos for an encoder."""
        resize = self.resize or round(encoder.size * RESIZE)
        if resize < encoder.size:
            raise UsageError(
                f"--resize {resize} is below the {encoder.size} pixels of {encoder.name}'s input: pass at least "
                f"{encoder.size}"
            )
        return CentreCrops(encoder.size, resize, filter, encoder.mean, encoder.std)

    def described(self) -> dict[str, Any]:
        """See `Options.described`; with the preset's numbers."""
        values = {**super().described(), **self.numbers()}
        return {name: value for name, value in values.items() if name not in ("run", "checkpoint_minutes", "fuse")}

    def _identity(self, dataset: Dataset, encoder: Encoder) -> dict[str, Any]:
        train = dataset.split("train")
        labels = zlib.crc32(train.labels_N.tobytes())
        for name in train.names:
            labels = zlib.crc32(utf8(name), labels)
        data = f"{dataset.name} ({len(train)} training photos, {labels:08x})"
        return {**self.described(), "models": f"{encoder.name} ({encoder.digest[:8]})", "data": data, "seed": self.seed}


def _text(value: Any) -> str:
    """A value as on the command line."""
    parts = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)


def _file_name(text: str) -> str:
    """The text with everything replaced that needs quotes in a shell."""
    return re.sub(r"[^\w.+-]+", "_", text)


def _undivided(dataset: Dataset) -> Dataset:
    """The data set with val as a part of train."""
    if not {"train", "val"} <= dataset.splits.keys():
        return dataset
    others = {name: split for name, split in dataset.splits.items() if name != "val"}
    whole = {**others, "train": dataset.splits["train"].join(dataset.splits["val"])}
    how = f"{dataset.how}; trained on train and val".removeprefix("; ")
    return dataclasses.replace(dataset, splits=whole, how=how)
