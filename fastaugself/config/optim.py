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
    min_lr: float = 0.0
    """Learning rate at the end of the cosine schedule, at batch size 256 like --optim.lr."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    weight_decay: float = 1e-4
    """Weight decay."""
    weight_decay_end: float | None = None
    """Weight decay at the end of training, to which it moves with a cosine schedule (0.4 for DINO's ViTs). Default:
    constant."""
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
    lr_in_velocity: bool = False
    """Multiply gradients by the learning rate before momentum averages them, as TensorFlow and SimCLR's LARS do, and
    not afterwards as PyTorch does; differs while the learning rate changes (LARS only)."""
    clip_grad: float = 0.0
    """Maximum norm of the gradient, to which longer ones are scaled down; 0 = no clipping."""
    clip_by: Literal["global", "parameter"] = "global"
    """Clip the norm of all gradients together, or that of each parameter on its own, as DINO's code does."""
    warmup_epochs: float = 0.0
    """Number of epochs of linear warm-up from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning-rate schedule after the warm-up: cosine decay to --optim.min-lr, or constant."""
    schedule_by: Literal["step", "epoch"] = "step"
    """Update the learning rate every step, or every epoch as in the published code."""

    def __post_init__(self) -> None:
        for name in (
            "lr", "min_lr", "momentum", "weight_decay", "warmup_epochs", "trust_coefficient", "norm_bias_lr_scale",
            "clip_grad",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                option = "--optim." + name.replace("_", "-")
                raise UsageError(
                    f"{option} must be at least 0, got {getattr(self, name)}; pass {option} {getattr(Optim, name)}"
                )
        if self.min_lr > self.lr:
            raise UsageError(
                f"--optim.min-lr {self.min_lr} is above --optim.lr {self.lr}, the peak; pass --optim.min-lr "
                f"{self.lr / 1000:g}"
            )
        if self.min_lr and self.schedule == "constant":
            raise UsageError(
                f"--optim.min-lr {self.min_lr}: a constant learning rate does not decay to it; pass --optim.min-lr 0, "
                "or --optim.schedule cosine"
            )
        if self.weight_decay_end is not None and not self.weight_decay_end >= 0:
            raise UsageError(
                f"--optim.weight-decay-end must be at least 0, got {self.weight_decay_end}; pass "
                f"--optim.weight-decay-end {self.weight_decay}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            first, second = self.betas
            raise UsageError(f"--optim.betas must be in [0, 1), got {first} {second}; pass --optim.betas 0.9 0.999")
        if self.adapt_norm_bias and (self.name not in ("lars", "lamb") or self.implementation == "apex"):
            raise UsageError(
                f"--optim.adapt-norm-bias needs this project's LARS or LAMB, got --optim.name {self.name} of "
                f"{self.implementation}; pass --optim.no-adapt-norm-bias"
            )
        if self.lr_in_velocity and self.name != "lars":
            raise UsageError(
                f"--optim.lr-in-velocity needs LARS, got --optim.name {self.name}; pass --optim.no-lr-in-velocity"
            )
        if self.implementation == "apex" and self.clip_grad:
            raise UsageError(
                f"--optim.clip-grad {self.clip_grad}: gradients are not clipped with apex's optimizers; pass "
                "--optim.implementation torch, or --optim.clip-grad 0"
            )
        if self.implementation == "apex" and self.name == "lars":
            raise UsageError("--optim.implementation apex has no fused LARS; pass --optim.implementation torch")
        if self.implementation == "apex" and self.name == "lamb" and (self.decay_norm_bias or not self.weight_decay):
            decay = "" if self.weight_decay else f" --optim.weight-decay {Optim.weight_decay}"
            raise UsageError(
                "--optim.implementation apex: its LAMB scales the steps of layers with weight decay only; pass "
                f"--optim.no-decay-norm-bias{decay}, or --optim.implementation torch"
            )
