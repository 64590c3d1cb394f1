"""No method at all, for `--ss-only`: the encoder learns from AugSelf's losses alone (Lee 2021, arXiv 2111.09613)."""

from .base import Method, Output, Parts, Views, encode


class PretextMethod(Method):
    """The encoder on both views, and a loss of zero."""

    separable = True

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.backbone = parts.backbone

    def forward(self, views: Views) -> Output:
        f1_BD, f2_BD = encode(self.backbone, views.x_VBCHW)
        return Output(f1_BD.new_zeros(()), (f1_BD, f2_BD))
