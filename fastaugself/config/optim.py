"""Options of the optimizer and the learning-rate schedule."""

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError


@dataclass(frozen=True)
class Optim:
    """The optimizer and its schedule."""

    name: Literal["sgd", "adamw", "lars", "lamb"] = "sgd"
    """Optimizer: SGD with momentum, AdamW, or, for large batches, LARS or LAMB (norms and biases without layer-wise
    scaling)."""
    implementation: Literal["torch", "apex"] = "torch"
    """Implementation of the optimizer: PyTorch's fused ones (this project's for LARS and LAMB), or NVIDIA apex's (CUDA
    only; no LARS)."""
    lr: float = 0.03
    """Learning rate at batch size 256; scaled linearly with --batch-size."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    weight_decay: float = 1e-4
    """Weight decay."""
    decay_norm_bias: bool = True
    """Apply weight decay to norms and biases too, as MoCo and AugSelf do."""
    norm_bias_lr_scale: float = 1.0
    """Learning-rate multiplier for norms and biases; 0.024 in Barlow Twins."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of AdamW and LAMB."""
    trust_coefficient: float = 1e-3
    """LARS trust coefficient."""
    adapt_norm_bias: bool = False
    """Scale the steps of norms and biases layer-wise too (LARS, LAMB), as LARC does in SwAV's code."""
    warmup_epochs: float = 0.0
    """Number of epochs of linear warm-up from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning-rate schedule after the warm-up: cosine decay to 0, or constant."""
    schedule_by: Literal["step", "epoch"] = "step"
    """Update the learning rate every step, or every epoch as in the published code."""

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay", "warmup_epochs", "trust_coefficient", "norm_bias_lr_scale"):
            if not getattr(self, name) >= 0:
                option = "--optim." + name.replace("_", "-")
                raise UsageError(
                    f"{option} must be at least 0, got {getattr(self, name)}; pass {option} {getattr(Optim, name)}"
                )
        if not all(0 <= beta < 1 for beta in self.betas):
            first, second = self.betas
            raise UsageError(f"--optim.betas must be in [0, 1), got {first} {second}; pass --optim.betas 0.9 0.999")
        if self.adapt_norm_bias and (self.name not in ("lars", "lamb") or self.implementation == "apex"):
            raise UsageError(
                f"--optim.adapt-norm-bias needs this project's LARS or LAMB, got --optim.name {self.name} of "
                f"{self.implementation}; pass --optim.no-adapt-norm-bias"
            )
        if self.implementation == "apex" and self.name == "lars":
            raise UsageError("--optim.implementation apex has no fused LARS; pass --optim.implementation torch")
        if self.implementation == "apex" and self.name == "lamb" and (self.decay_norm_bias or not self.weight_decay):
            decay = "" if self.weight_decay else f" --optim.weight-decay {Optim.weight_decay}"
            raise UsageError(
                "--optim.implementation apex: its LAMB scales the steps of layers with weight decay only; pass "
                f"--optim.no-decay-norm-bias{decay}, or --optim.implementation torch"
            )
