"""Supervised learning on both views: the baseline that AugSelf is also applied to (Lee 2021, arXiv 2111.09613)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from ..errors import UsageError
from .base import Method, Options, Output, Parts, Views, encode


@dataclass(frozen=True)
class Supervised(Options):
    """Cross entropy of the labels on both views."""

    title = "Supervised"
    conditional = False

    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise UsageError(f"--method.label-smoothing must be in [0, 1], got {self.label_smoothing}")

    def build(self, parts: Parts) -> "SupervisedMethod":
        return SupervisedMethod(self, parts)


class SupervisedMethod(Method):
    """Encoder and a linear classifier."""

    separable = True

    def __init__(self, config: Supervised, parts: Parts) -> None:
        super().__init__()
        if parts.classes < 2:
            raise UsageError("supervised training needs photos of at least two classes: one folder for each")
        self.config = config
        self.backbone = parts.backbone
        self.classifier = nn.Linear(parts.num_features, parts.classes)

    def forward(self, views: Views) -> Output:
        features = encode(self.backbone, views.x_VBCHW)
        smoothing = self.config.label_smoothing
        losses = [
            F.cross_entropy(self.classifier(f).float(), views.labels_B, label_smoothing=smoothing) for f in features
        ]
        return Output((losses[0] + losses[1]) / 2, (features[0], features[1]))
