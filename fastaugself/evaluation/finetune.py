"""Fine-tuning: encoder and a new linear classifier, trained together on one random crop of each photo.

Shape suffixes: H = 1, B batch, C channels or classes, H W, D features.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..aware.learner import Learner
from ..config.optim import Optim
from ..distributed import World, mean_over_processes
from ..methods.base import BuildContext, Method, Output, Views
from ..models.norm import synchronised, use_native_sync
from ..training.compile import Compile
from ..training.layer_decay import layer_groups
from ..training.optim import learning_rate, load_state, optimizer_of, set_learning_rate
from ..training.step import TrainStep, seed_step
from .crops import Crops
from .encoder import Encoder
from .pixels import Filter

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class Preset:
    """A published setting.

    epochs: of trainings on less than 5 % of the photos, and on more. batch_size: photos per optimizer step. optim: with
    lr at batch size 256. nesterov: of SGD. filter: of the resize of test photos.
    """

    epochs: tuple[int, int]
    batch_size: int
    optim: Optim
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    nesterov: bool = False
    filter: Filter = "bilinear"


FEW = 0.05  # of the photos
PRESETS = {
    # SimCLR (Chen 2020, arXiv 2002.05709), appendix B.5: 60 epochs on 1 %, 30 on 10 %; the cosine is that of its code.
    "simclr": Preset((60, 30), 4096, Optim("sgd", lr=0.05, momentum=0.9, weight_decay=0.0), nesterov=True),
    # MAE (He 2021, arXiv 2111.06377), FINETUNE.md for ViT-B; without mixup, CutMix, RandAugment, erasing and drop path.
    "mae": Preset(
        (100, 100),
        1024,
        Optim("adamw", lr=5e-4, min_lr=2.5e-7, weight_decay=0.05, decay_norm_bias=False, warmup_epochs=5),
        layer_decay=0.65,
        label_smoothing=0.1,
        filter="bicubic",
    ),
}


class Classifier(Method):
    """An encoder with a linear classifier whose weights are normal with std 0.01, and biases 0."""

    def __init__(self, context: BuildContext, *, label_smoothing: float, seed: int) -> None:
        super().__init__(context)
        self.classifier = nn.Linear(context.num_features, context.num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.classifier.bias)
        self.label_smoothing = label_smoothing

    def forward(self, views: Views) -> Output:
        f_BD = self.encode_view(self.backbone, views, 0).flatten(1)
        logits_BC = self.classifier(f_BD).float()
        loss = F.cross_entropy(logits_BC, views.labels_B, label_smoothing=self.label_smoothing)
        return Output(loss, (f_BD, f_BD))

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, C] of normalised images."""
        logits_BC: Tensor = self.classifier(self.backbone(x_BCHW).flatten(1))
        return logits_BC.float()


class Finetuning:
    """The fine-tuning of one encoder, whose weights it changes; see `training_loop.Trained`.

    preset: with the numbers that are used. epochs: of the schedule. accumulate: micro-batches per step.
    Batch norm is synchronised where there are several processes, so that the result does not depend on their number.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        preset: Preset,
        world: World,
        *,
        epochs: int,
        steps_per_epoch: int,
        dtype: torch.dtype,
        compile: Compile = "auto",
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        self.preset, self.world, self.seed, self._probed = preset, world, seed, False
        self.epochs, self.steps_per_epoch, self.dtype = epochs, steps_per_epoch, dtype
        width = encoder.num_features
        backbone = encoder.module.requires_grad_(True).train()
        if world.size > 1:
            _warn_of_others(synchronised(backbone))
        self.method = Classifier(
            BuildContext(backbone, width, num_classes=classes), label_smoothing=preset.label_smoothing, seed=seed
        )
        learner = Learner(self.method).to(world.device)
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = layer_groups(backbone, self.method.classifier, preset.optim, layer_decay=preset.layer_decay)
        self.optimizer = optimizer_of(groups, preset.optim)
        if preset.nesterov:
            for group in self.optimizer.param_groups:
                group["nesterov"] = True
        self.step_fn = TrainStep(
            learner, self.optimizer, device=world.device, dtype=dtype, processes=world.size, compile=compile,
            accumulate=accumulate,
        )  # fmt: skip
        if world.size > 1 and world.device.type == "cuda" and not self.step_fn.compiled:
            use_native_sync(learner)

    def step(self, crops: Crops) -> Tensor | None:
        """See `training_loop.Trained`."""
        optim, steps = self.preset.optim, self.steps_per_epoch
        batch_size = len(crops.ids_B) * self.world.size
        lr = learning_rate(optim, crops.step, steps_per_epoch=steps, epochs=self.epochs, batch_size=batch_size)
        set_learning_rate(self.optimizer, lr, optim.lr * batch_size / 256)
        seed_step(self.seed, crops.step, self.world.rank)
        views = Views(crops.x_BCHW[None], crops.labels_B)
        if not self._probed:
            self.step_fn.probe(views)
            self._probed = True
        output = self.step_fn(views, global_step=crops.step, progress=(crops.step + 1) / (self.epochs * steps))
        return mean_over_processes(output.loss.detach())[None]

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Logits [1, B, C] of normalised images, in evaluation mode."""
        self.method.eval()
        with torch.autocast(self.world.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.method.logits(x_BCHW)[None]

    def state(self) -> dict[str, Any]:
        """See `training_loop.Trained`."""
        return {
            "learner": self.step_fn.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.step_fn.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """See `training_loop.Trained`."""
        self.step_fn.learner.load_state_dict(state["learner"])
        load_state(self.optimizer, state["optimizer"])
        self.step_fn.scaler.load_state_dict(state["scaler"])


def _warn_of_others(backbone: nn.Module) -> None:
    """Logs a warning if batch norms of other kinds were not synchronised."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    left = {type(m).__name__ for m in backbone.modules() if isinstance(m, kinds) and not getattr(m, "sync", False)}
    if left:
        text = "the batch norms of %s (%s) have statistics per process: the result depends on the number of processes"
        log.warning(text, type(backbone).__name__, ", ".join(sorted(left)))
