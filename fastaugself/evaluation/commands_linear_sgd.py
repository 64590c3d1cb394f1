"""`fastaugself eval linear-sgd`: linear evaluation by SGD on random crops."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..distributed import World
from ..errors import UsageError
from . import linear_presets, linear_sgd
from .encoder import Encoder
from .head_inputs import HeadInputs
from .heads import Head, Heads
from .linear_sgd import HeadTraining
from .results import Row
from .splits import Dataset, require_classes
from .top_k import rows
from .training_loop import Checkpoints, train
from .training_options import TrainingOptions

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class LinearSgd(TrainingOptions):
    """Linear evaluation by SGD on random crops, as published for ImageNet: the protocols of MoCo, SimSiam, DINO, ..."""

    preset: Literal[
        "moco", "simsiam", "moco-v3", "moco-v3-vit", "dino", "dino-vit-small", "dino-vit-base", "dinov2"
    ] = "moco"
    """The published protocol whose numbers are used where no option replaces them."""
    lr: tuple[float, ...] = ()
    """Learning rates at batch size 256, one head each; default: the preset's."""
    weight_decay: tuple[float, ...] = (0.0,)
    """Weight decays; every one is combined with every learning rate."""
    inputs: tuple[str, ...] = ()
    """What the heads read: pooled features, or tokens of a ViT's last blocks (cls, cls4, cls+mean, cls4+mean, ...);
    every one is combined with every learning rate. Default: the preset's."""

    name: ClassVar[str] = "linear-sgd"
    replaces: ClassVar[tuple[str, ...]] = (*TrainingOptions.replaces, "lr", "weight_decay", "inputs")

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, values, least in (("lr", self.lr, 0.0), ("weight-decay", self.weight_decay, 0.0)):
            for value in values:
                if not value >= least or (option == "lr" and value == 0):
                    rule = "above 0" if option == "lr" else "at least 0"
                    raise UsageError(f"--{option} must be {rule}, got {value:g}")
        if not self.weight_decay:
            raise UsageError("--weight-decay needs a value: pass --weight-decay 0")
        if len(self.heads) == 1:
            self.refuse_resplit("a single head is not chosen on one")

    @property
    def protocol(self) -> linear_presets.Preset:
        """The preset with the options that replace its numbers."""
        preset = linear_presets.PRESETS[self.preset]
        return dataclasses.replace(
            preset,
            epochs=self.epochs or preset.epochs,
            batch_size=self.train_batch or preset.batch_size,
            lr=self.lr or preset.lr,
            inputs=self.inputs or preset.inputs,
        )

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads: every combination of input, learning rate and weight decay, each once."""
        preset = self.protocol
        every = (Head(i, lr, decay) for i in preset.inputs for lr in preset.lr for decay in self.weight_decay)
        return tuple(dict.fromkeys(every))

    def numbers(self) -> dict[str, Any]:
        """See `TrainingOptions`."""
        preset = self.protocol
        return {"epochs": preset.epochs, "train_batch": preset.batch_size, "lr": preset.lr, "inputs": preset.inputs}

    def check(self, encoder: Encoder) -> None:
        """See `TrainingOptions`."""
        HeadInputs(encoder, self.protocol.inputs)
        self.centre(encoder, self.protocol.filter)

    def read_data(self) -> Dataset:
        """Reads the data; with a validation split only if there are several heads to choose from."""
        if len(self.heads) > 1:
            dataset = super().read_data()
            require_classes(dataset, ("train", "val"))
            return dataset
        return self.read_undivided()

    def evaluate(self, dataset: Dataset, encoder: Encoder, world: World, checkpoints: Checkpoints) -> list[Row]:
        """See `TrainingOptions`."""
        preset, heads = self.protocol, self.heads
        inputs = HeadInputs(encoder, preset.inputs)
        linear_sgd.frozen(inputs, world.device)
        crops = self.crops(
            dataset.split("train"), encoder, world, batch_size=preset.batch_size, forward=self.batch_size
        )
        training = HeadTraining(
            inputs, Heads(heads, inputs.slices, len(dataset.classes), seed=self.seed), preset, world,
            steps_per_epoch=crops.steps_per_epoch, dtype=crops.dtype,
        )  # fmt: skip
        log.info(
            "%s: %d %s on %d photos, %d epochs of %d steps", encoder.name, len(heads),
            "head" if len(heads) == 1 else "heads", len(crops.split), preset.epochs, crops.steps_per_epoch,
        )  # fmt: skip
        train(training, crops, checkpoints, epochs=preset.epochs)
        centre = self.centre(encoder, preset.filter)
        options = {"batch_size": self.batch_size, "workers": self.workers}
        details: dict[str, Any] = {"preset": self.preset}
        chosen = 0
        if len(heads) > 1:
            choice = linear_sgd.choose(training, centre, dataset.split("val"), world, dataset.metric, **options)
            chosen = choice.head
            details["heads"] = [{"head": str(h), "val": v} for h, v in zip(heads, choice.val, strict=True)]
            log.info("%s: best of %d heads on val: %s", encoder.name, len(heads), heads[chosen])
        else:
            linear_sgd.check_finite(training.heads)
        details["head"] = heads[chosen]._asdict()
        test = dataset.split("test")
        hits = linear_sgd.score(training, chosen, centre, test, world, **options)
        return rows((encoder.name,), hits, test, dataset.metric, seed=self.seed, details=details)
