"""A configuration to its learner."""

import torch

from ..config import Pretrain
from ..models.build import build_backbone
from .augself import AugSelfLoss
from .learner import Learner
from .moco import MoCoMethod


def build_learner(config: Pretrain) -> Learner:
    """The method and its auxiliary heads, initialised from the configuration's seed, on the CPU."""
    torch.manual_seed(config.seed)
    backbone, width = build_backbone(config.backbone)
    method = MoCoMethod(config.method, backbone, width, sync=config.backbone.sync)
    return Learner(method, AugSelfLoss(config.augself, width, sync=config.backbone.sync))
