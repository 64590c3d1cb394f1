"""A configuration to its learner."""

import torch

from ..config import Pretrain
from ..models.build import build_backbone
from .augself import AugSelfLoss
from .base import Parts
from .learner import Learner
from .pretext import PretextMethod


def build_learner(config: Pretrain, *, classes: int = 0) -> Learner:
    """The method and its auxiliary heads, initialised from the configuration's seed, on the CPU.

    classes: of the training photos, for methods that use labels.
    """
    torch.manual_seed(config.seed)
    backbone, width = build_backbone(config.backbone, image_size=config.view.size)
    parts = Parts(backbone, width, config.backbone.sync, config.cassle, classes)
    method = PretextMethod(parts) if config.ss_only else config.method.build(parts)
    return Learner(method, AugSelfLoss(config.augself, width, sync=config.backbone.sync))
