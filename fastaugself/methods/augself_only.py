"""Placeholder method for `--augself-only`: training on the AugSelf losses only (Lee 2021, arXiv 2111.09613)."""

from .base import Method, Output, Views


class AugSelfOnly(Method):
    """Encodes both views; the loss of the base method is zero."""

    def forward(self, views: Views) -> Output:
        f1_BD, f2_BD = self.encode(self.backbone, views)
        return Output(f1_BD.new_zeros(()), (f1_BD, f2_BD))
