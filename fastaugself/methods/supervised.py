"""Supervised learning on both views; Lee 2021 (arXiv 2111.09613) also applies AugSelf to it."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from ..errors import UsageError
from .base import BuildContext, Method, MethodConfig, Output, Views


@dataclass(frozen=True)
class Supervised(MethodConfig):
    """Cross entropy of the labels on both views."""

    title = "Supervised"
    per_sample_loss = True
    has_projector = False
    needs_labels = True

    label_smoothing: float = 0.0
    """Label smoothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise UsageError(
                f"--method.label-smoothing must be in [0, 1], got {self.label_smoothing}; pass "
                f"--method.label-smoothing {Supervised.label_smoothing}"
            )

    def build(self, context: BuildContext) -> "SupervisedMethod":
        return SupervisedMethod(self, context)


class SupervisedMethod(Method):
    """Encoder and linear classifier."""

    def __init__(self, config: Supervised, context: BuildContext) -> None:
        super().__init__(context)
        if context.num_classes < 2:
            raise UsageError(
                "supervised training needs photos of at least two classes: pass a folder with one subfolder per class"
            )
        self.config = config
        self.classifier = nn.Linear(context.num_features, context.num_classes)

    def forward(self, views: Views) -> Output:
        features = self.encode(self.backbone, views)
        smoothing = self.config.label_smoothing
        losses = [
            F.cross_entropy(self.classifier(f).float(), views.labels_B, label_smoothing=smoothing) for f in features
        ]
        return Output((losses[0] + losses[1]) / 2, features)
