"""No base method, for `--augself-only`: training on AugSelf's losses alone (Lee 2021, arXiv 2111.09613)."""

from .base import Method, Output, Views


class AugSelfOnly(Method):
    """The encoder on both views, and a loss of zero."""

    def forward(self, views: Views) -> Output:
        f1_BD, f2_BD = self.encode(self.backbone, views)
        return Output(f1_BD.new_zeros(()), (f1_BD, f2_BD))
