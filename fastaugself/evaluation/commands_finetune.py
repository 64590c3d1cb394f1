"""`fastaugself eval finetune`: fine-tuning on all labels or a part of them."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..distributed import World
from ..errors import UsageError
from ..training.compile import Compile
from ..training.layer_decay import layers
from . import finetune
from .encoder import Encoder
from .finetune import FEW, Finetuning
from .label_subset import fraction_of, listed
from .results import Row
from .splits import Dataset, require_classes
from .top_k import rows
from .training_loop import Checkpoints, train
from .training_options import TrainingOptions

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class Finetune(TrainingOptions):
    """Fine-tuning of the encoder with a linear classifier, on all labels or a part of them (1 %, 10 %)."""

    preset: Literal["simclr", "mae"] = "simclr"
    """The published setting whose numbers are used where no option replaces them: SimCLR's for ResNets (SGD), or MAE's
    for ViTs (AdamW with layer-wise learning-rate decay)."""
    fraction: float = 1.0
    """Fraction of each class's training photos, drawn with --seed."""
    subset: Path | None = None
    """File with the names of the training photos to use, one a line, instead of a fraction."""
    lr: float | None = None
    """Learning rate at batch size 256; default: the preset's."""
    weight_decay: float | None = None
    """Weight decay; default: the preset's."""
    layer_decay: float | None = None
    """Layer-wise learning-rate decay: factor from each layer to the one below it, 1 = none; default: the preset's."""
    label_smoothing: float | None = None
    """Label smoothing; default: the preset's."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; default: the preset's."""
    accumulate: int = 1
    """Micro-batches per optimizer step, for models that do not fit into memory with the whole batch. Batch norm's
    statistics are per micro-batch."""
    compile: Compile = "auto"
    """Use torch.compile; auto: on CUDA."""

    name: ClassVar[str] = "finetune"
    replaces: ClassVar[tuple[str, ...]] = (
        *TrainingOptions.replaces,
        "lr",
        "weight_decay",
        "layer_decay",
        "label_smoothing",
        "warmup_epochs",
    )
    least: ClassVar[dict[str, float]] = {**TrainingOptions.least, "accumulate": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_resplit("fine-tuning chooses nothing on one")
        if not 0 < self.fraction <= 1:
            raise UsageError(f"--fraction must be above 0 and at most 1, got {self.fraction:g}: pass --fraction 0.1")
        if self.subset is not None and self.fraction != 1:
            raise UsageError("--fraction and --subset both choose the training photos: pass only one of them")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UsageError(
                f"--layer-decay must be above 0 and at most 1, got {self.layer_decay:g}: pass --layer-decay 0.75"
            )
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise UsageError(
                f"--label-smoothing must be in [0, 1), got {self.label_smoothing:g}: pass --label-smoothing 0.1"
            )
        for option in ("lr", "weight_decay", "warmup_epochs"):
            value = getattr(self, option)
            if value is not None and not value >= 0:
                raise UsageError(f"--{option.replace('_', '-')} must be at least 0, got {value:g}")
        if self.subset is not None and not self.epochs and len(set(self.protocol.epochs)) > 1:
            few, more = self.protocol.epochs
            raise UsageError(
                f"--subset needs --epochs: pass --epochs {few} for about 1 % of the photos, {more} for 10 %"
            )

    @property
    def protocol(self) -> finetune.Preset:
        """The preset with the options that replace its numbers."""
        preset = finetune.PRESETS[self.preset]
        given = {"lr": self.lr, "weight_decay": self.weight_decay, "warmup_epochs": self.warmup_epochs}
        optim: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.lr is not None and self.lr < preset.optim.min_lr:
            optim["min_lr"] = 0.0
        return dataclasses.replace(
            preset,
            epochs=(self.epochs, self.epochs) if self.epochs else preset.epochs,
            batch_size=self.train_batch or preset.batch_size,
            optim=dataclasses.replace(preset.optim, **optim),
            layer_decay=preset.layer_decay if self.layer_decay is None else self.layer_decay,
            label_smoothing=preset.label_smoothing if self.label_smoothing is None else self.label_smoothing,
        )

    def numbers(self) -> dict[str, Any]:
        """See `TrainingOptions`."""
        preset = self.protocol
        return {
            "epochs": preset.epochs[self.fraction >= FEW], "train_batch": preset.batch_size, "lr": preset.optim.lr,
            "weight_decay": preset.optim.weight_decay, "warmup_epochs": preset.optim.warmup_epochs,
            "layer_decay": preset.layer_decay, "label_smoothing": preset.label_smoothing,
        }  # fmt: skip

    def described(self) -> dict[str, Any]:
        """See `Options.described`; without how fast it runs."""
        return {name: value for name, value in super().described().items() if name != "compile"}

    def check(self, encoder: Encoder) -> None:
        """See `TrainingOptions`."""
        self.centre(encoder, self.protocol.filter)
        if self.protocol.layer_decay != 1:
            layers(encoder.module)

    def read_data(self) -> Dataset:
        """Reads the data, with the chosen part of the training photos as train."""
        dataset = self.read_undivided()
        require_classes(dataset, ("train", "test"))
        whole = dataset.split("train")
        if self.subset is not None:
            train, part = listed(dataset, whole, self.subset, self.data), f"{self.subset.name}"
        else:
            train = fraction_of(dataset, whole, self.fraction, seed=self.seed)
            part = f"{self.fraction:.4g} of each class, seed {self.seed}"
        how, name = dataset.how, dataset.name
        if len(train) < len(whole):
            how = f"{how}; trained on {len(train)} of {len(whole)} photos ({part})".removeprefix("; ")
            share = f"{100 * self.fraction:g} %" if self.subset is None else self.subset.stem
            name = f"{name}, {share} of labels"
        splits = {**dataset.splits, "train": train}
        return dataclasses.replace(dataset, name=name, splits=splits, how=how)

    def evaluate(self, dataset: Dataset, encoder: Encoder, world: World, checkpoints: Checkpoints) -> list[Row]:
        """See `TrainingOptions`."""
        preset, split = self.protocol, dataset.split("train")
        epochs = self.numbers()["epochs"]
        each = max(1, preset.batch_size // world.size)
        crops = self.crops(split, encoder, world, batch_size=preset.batch_size, forward=each)
        if each % self.accumulate:
            raise UsageError(
                f"--accumulate {self.accumulate} must divide the {each} photos of a process: pass --accumulate 1"
            )
        if each < 2 * self.accumulate:
            raise UsageError(
                f"--train-batch {preset.batch_size} gives a forward pass one photo, and batch norm needs at least two: "
                f"pass --train-batch {2 * self.accumulate * world.size}"
            )
        tuning = Finetuning(
            encoder, len(dataset.classes), preset, world, epochs=epochs, steps_per_epoch=crops.steps_per_epoch,
            dtype=crops.dtype, compile=self.compile, accumulate=self.accumulate, seed=self.seed,
        )  # fmt: skip
        log.info("%s: %d photos, %d epochs of %d steps", encoder.name, len(split), epochs, crops.steps_per_epoch)
        train(tuning, crops, checkpoints, epochs=epochs)
        test = dataset.split("test")
        centre = self.centre(encoder, self.protocol.filter)
        hits = centre.hits(tuning.logits, test, world, batch_size=self.batch_size, workers=self.workers)
        details = {"preset": self.preset, "epochs": epochs, "training photos": len(split)}
        return rows((encoder.name,), hits, test, dataset.metric, seed=self.seed, details=details)
