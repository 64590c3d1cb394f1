"""Builds the module that is trained from a configuration."""

from pathlib import Path

import torch

from ..aware.base import AwareContext
from ..aware.cassle import projector_type
from ..aware.learner import Learner
from ..aware.predictor import predictor_type
from ..config.schema import Pretrain
from ..methods.base import BuildContext
from ..methods.encoder_only import EncoderOnly
from ..models.build import build_backbone
from ..models.inner import layer_widths
from ..models.weights import load_weights


def build_learner(
    config: Pretrain,
    *,
    num_classes: int = 0,
    init: Path | None = None,
    batched_views: bool = False,
    micro_batch: int | None = None,
) -> Learner:
    """Builds the method and its aware objectives on the CPU, initialised with the configuration's seed.

    num_classes: number of classes of the training photos, for methods that use labels. init: file with backbone
    weights. batched_views: encode both views in one forward pass of a ResNet, each with its own batch statistics.
    micro_batch: samples per forward pass on one process, by default `config.batch_size`.
    Raises UsageError or RunError if `init` has no weights for this backbone.
    """
    torch.manual_seed(config.seed)
    backbone_config = config.backbone
    split = getattr(config.method, "split", 1) > 1  # the parts of a view have common batch statistics
    batched_views = batched_views and not backbone_config.name.startswith("timm:") and not split
    bn_group_size = micro_batch or config.batch_size if batched_views else 0
    if backbone_config.batch_norm == "split":
        bn_group_size = backbone_config.bn_group_size
    backbone, num_features = build_backbone(
        backbone_config,
        image_size=config.view.size,
        other_sizes=config.other_sizes,
        bn_group_size=bn_group_size,
    )
    if init is not None:
        load_weights(backbone, init)
    build_projector = projector_type(config.cassle)
    for options in config.objectives.values():
        build_projector = options.projector_type(build_projector)
    context = BuildContext(
        backbone,
        num_features,
        num_classes=num_classes,
        sync=backbone_config.sync,
        batched_views=batched_views,
        projector_type=build_projector,
        predictor_type=predictor_type(config.predictor, config.view),
    )
    method = config.method.build(context) if config.base_loss else EncoderOnly(context)
    aware = AwareContext(
        method,
        num_features,
        policies=config.policies,
        layer_widths=layer_widths(backbone),
        batch_size=micro_batch or config.batch_size,
        sync=backbone_config.sync,
    )
    objectives = {name: options.build(aware) for name, options in config.objectives.items()}
    return Learner(method, objectives, requests=config.requests)
