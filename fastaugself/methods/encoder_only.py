"""Placeholder method for training on aware objectives alone (`--augself.only`, ...), without a base method's loss."""

from .base import Method, Output, Views


class EncoderOnly(Method):
    """The encoder without projector, predictor, EMA copy, queue and loss."""

    def forward(self, views: Views) -> Output:
        features = self.encode(self.backbone, views)
        # Zero, with zero gradients: DDP waits for every parameter, also for those above the layer that is read.
        return Output(0.0 * (features[0].float().sum() + features[1].float().sum()), features)
