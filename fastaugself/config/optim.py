"""Options of the optimizer and the learning-rate schedule."""

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError


@dataclass(frozen=True)
class Optim:
    """The optimizer and its schedule."""

    name: Literal["sgd", "adamw", "lars", "lamb"] = "sgd"
    """Optimizer: SGD with momentum, AdamW, or LARS and LAMB for large batches (without layer-wise scaling of norms and
    biases)."""
    implementation: Literal["torch", "apex"] = "torch"
    """Implementation: PyTorch's fused optimizers (LARS and LAMB: this project's), or NVIDIA apex's (CUDA, not LARS)."""
    lr: float = 0.03
    """Learning rate at batch size 256; scaled linearly with --batch-size."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    weight_decay: float = 1e-4
    """Weight decay."""
    decay_norm_bias: bool = True
    """Apply weight decay to norms and biases too, as MoCo and AugSelf do."""
    norm_bias_lr_scale: float = 1.0
    """Learning-rate multiplier of norms and biases; 0.024 in Barlow Twins."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of AdamW and LAMB."""
    trust_coefficient: float = 1e-3
    """LARS trust coefficient."""
    warmup_epochs: float = 0.0
    """Number of epochs of linear warm-up from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning-rate schedule after the warm-up: half a cosine down to 0, or constant."""
    schedule_by: Literal["step", "epoch"] = "step"
    """Update the learning rate every step, or every epoch as in the published code."""

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay", "warmup_epochs", "trust_coefficient"):
            if getattr(self, name) < 0:
                raise UsageError(f"--optim.{name.replace('_', '-')} must be at least 0, got {getattr(self, name)}")
        if self.implementation == "apex" and self.name == "lars":
            raise UsageError("apex has no fused LARS; pass --optim.implementation torch")
        if self.implementation == "apex" and self.name == "lamb" and (self.decay_norm_bias or not self.weight_decay):
            raise UsageError(
                "apex's LAMB only scales layers with weight decay: pass --optim.no-decay-norm-bias "
                "with an --optim.weight-decay above 0, or --optim.implementation torch"
            )
