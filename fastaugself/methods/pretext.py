"""No method at all, for `--ss-only`: the encoder learns from AugSelf's losses alone (Lee 2021, arXiv 2111.09613)."""

from .base import Method, Output, Parts, Views


class PretextMethod(Method):
    """The encoder on both views, and a loss of zero."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.backbone = parts.backbone

    def forward(self, views: Views) -> Output:
        f1_BD, f2_BD = (self.backbone(views.x_VBCHW[v]) for v in (0, 1))
        return Output(f1_BD.new_zeros(()), (f1_BD, f2_BD))
