"""Placeholder method for training on aware objectives alone (`--augself.only`, ...), without a base method's loss."""

from .base import Method, Output, Views


class EncoderOnly(Method):
    """The encoder without projector, predictor, EMA copy, queue and loss."""

    def forward(self, views: Views) -> Output:
        features = self.encode(self.backbone, views)
        return Output(features[0].new_zeros(()), features)
