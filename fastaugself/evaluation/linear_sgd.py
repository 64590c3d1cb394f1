"""Linear evaluation by SGD: heads on a frozen encoder, trained on random crops in one pass over the photos.

Every process encodes its share of a batch; features and labels are gathered, and every process takes the same step on
the whole batch. So the heads do not depend on the number of processes.

Shape suffixes: H heads, B batch, C channels or classes, H W, D features.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..distributed import World, all_gather
from ..errors import RunError
from ..probes.accuracy import accuracy
from .crops import Crops
from .head_inputs import HeadInputs
from .heads import Heads, make_optimizer, set_learning_rates
from .linear_presets import Preset, decay
from .splits import Split
from .top_k import CentreCrops, Hits


class HeadTraining:
    """The heads of one encoder and their optimizer; see `training_loop.Trained`.

    inputs: frozen, on the device. preset: with the numbers that are used. steps_per_epoch: optimizer steps.
    dtype: of the encoder's activations; heads are float32.
    """

    def __init__(
        self,
        inputs: HeadInputs,
        heads: Heads,
        preset: Preset,
        world: World,
        *,
        steps_per_epoch: int,
        dtype: torch.dtype,
    ) -> None:
        self.inputs, self.heads, self.preset = inputs, heads.to(world.device), preset
        self.steps_per_epoch, self.dtype, self._device = steps_per_epoch, dtype, world.device
        self.optimizer = make_optimizer(self.heads, preset.optimizer, batch_size=preset.batch_size)
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def step(self, crops: Crops) -> Tensor | None:
        """See `training_loop.Trained`."""
        with torch.no_grad():
            self._features.append(self.features(crops.x_BCHW))
        self._labels.append(crops.labels_B)
        if not crops.last:
            return None
        x_BD, labels_B = all_gather(torch.cat(self._features)), all_gather(torch.cat(self._labels))
        self._features, self._labels = [], []
        preset = self.preset
        factor = decay(preset.schedule, crops.step, steps_per_epoch=self.steps_per_epoch, epochs=preset.epochs)
        set_learning_rates(self.optimizer, factor)
        self.optimizer.zero_grad()
        losses_H = self.heads.losses(x_BD, labels_B)
        losses_H.sum().backward()
        self.optimizer.step()
        return losses_H.detach()

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features float32 [B, D] of normalised images."""
        with torch.autocast(self._device.type, self.dtype, enabled=self.dtype != torch.float32):
            f_BD: Tensor = self.inputs(x_BCHW)
        return f_BD

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Logits [H, B, C] of normalised images."""
        return self.heads(self.features(x_BCHW))

    def state(self) -> dict[str, Any]:
        """See `training_loop.Trained`."""
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """See `training_loop.Trained`."""
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])


class Choice(NamedTuple):
    """The head that is best on the validation split, and each head's accuracy there; None for diverged heads."""

    head: int
    val: list[float | None]


def choose(training: HeadTraining, crops: CentreCrops, val: Split, world: World, metric: str, **options: Any) -> Choice:
    """Chooses the head with the highest accuracy on the validation split, the first of several; a collective call.

    options: of `CentreCrops.hits`. Raises RunError if the weights of all heads are NaN or Inf.
    """
    hits = crops.hits(training.logits, val, world, **options)
    finite = check_finite(training.heads)
    val_accuracies = [
        accuracy(top1_N, val.labels_N, metric) if fine else None
        for top1_N, fine in zip(hits.top1_HN, finite, strict=True)
    ]
    best = max(value for value in val_accuracies if value is not None)
    return Choice(val_accuracies.index(best), val_accuracies)


def check_finite(heads: Heads) -> list[bool]:
    """For each head whether its weights are finite; RunError if those of none are."""
    finite = heads.finite()
    if not any(finite):
        raise RunError("the weights of all heads are NaN or Inf: pass a lower --lr")
    return finite


def score(training: HeadTraining, head: int, crops: CentreCrops, split: Split, world: World, **options: Any) -> Hits:
    """The hits of one head on the test split; a collective call. options: of `CentreCrops.hits`."""

    def logits(x_BCHW: Tensor) -> Tensor:
        return training.logits(x_BCHW)[head : head + 1]

    return crops.hits(logits, split, world, **options)


def frozen(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on the device, in evaluation mode and channels-last, without gradients."""
    module.requires_grad_(False).eval()
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
