"""A configuration to its learner."""

from pathlib import Path

import torch

from ..config import Pretrain
from ..models.build import build_backbone
from ..models.weights import load_weights
from .augself import AugSelfLoss
from .base import Parts
from .learner import Learner
from .pretext import PretextMethod


def build_learner(config: Pretrain, *, classes: int = 0, init: Path | None = None) -> Learner:
    """The method and its auxiliary heads, initialised from the configuration's seed, on the CPU.

    classes: of the training photos, for methods that use labels. init: file with other weights of the backbone.
    Raises UsageError or RunError for a file that is no such thing.
    """
    torch.manual_seed(config.seed)
    backbone, width = build_backbone(config.backbone, image_size=config.view.size)
    if init is not None:
        load_weights(backbone, init)
    parts = Parts(backbone, width, config.backbone.sync, config.cassle, classes)
    method = PretextMethod(parts) if config.ss_only else config.method.build(parts)
    return Learner(method, AugSelfLoss(config.augself, width, sync=config.backbone.sync))
