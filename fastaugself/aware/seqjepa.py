"""seq-JEPA: predict the features of the next view from a sequence of views and the actions between them (Ghaemi et al.
2025, arXiv 2505.03176).

M context views and a target view of every photo, the first two being the global views. With features z_i = f(x_i),
standardised parameters a_i and actions c_i = A(a_{i+1} - a_i), where A is a linear layer with batch norm:

    g = transformer([AGG; (z_1, c_1); ...; (z_M, 0)]) at AGG,   p = MLP([g; A(a_{M+1} - a_M)])
    L = weight * (1 - cos(p, sg f_ema(x_{M+1})))

Published: M = 3, no base loss (`--seqjepa.only`), EMA 0.996, a transformer of 3 layers and 4 heads without positions;
AdamW with a learning rate of 4e-4 and a weight decay of 1e-3, 2000 epochs on CIFAR-100 at batch size 256. Here dropout
is 0 and the EMA momentum constant. z is evaluated for what depends on the parameters, g for what does not; only the
encoder is exported.

Shape suffixes: V views, B batch, M context views, D features, A action, n descriptor columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from ..methods.base import Method
from ..models.ema import ema_copy, ema_update
from ..models.heads import mlp
from ..models.norm import batch_norm_1d
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    ViewRequest,
    at_least,
    register_aware,
)
from .descriptors import Descriptors, check_parts, varied

INCLUDE = ("blur", "color", "crop")
HEADS = 4


@register_aware("seqjepa")
@dataclass(frozen=True)
class SeqJEPA(AwareConfig):
    """seq-JEPA: predict the features of the next view from a sequence of views and the actions between them."""

    title = "seq-JEPA"
    per_sample_loss = True

    weight: float = 1.0
    """Weight of the loss; 0 = off."""
    context: int = 3
    """Number of context views, the two global views included."""
    action_dim: int = 128
    """Width of the encoded actions."""
    depth: int = 3
    """Number of layers of the transformer."""
    hidden: int = 1024
    """Width of the predictor's hidden layer."""
    momentum: float = 0.996
    """EMA momentum of the encoder that gives the target."""
    include: tuple[str, ...] = INCLUDE
    """Parameters in the actions: blur, color, crop, flip, grayscale, jitter, order, rotation, solarize."""
    only: bool = False
    """Train on this loss alone, without the base method's loss, as published."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        at_least(self, 1, "action_dim", "depth", "hidden")
        at_least(self, 2, "context")
        if not 0 <= self.momentum <= 1:
            raise UsageError(
                f"--seqjepa.momentum must be in [0, 1], got {self.momentum}; pass --seqjepa.momentum {SeqJEPA.momentum}"
            )
        check_parts("--seqjepa.include", self.include, INCLUDE)

    def augmentations(self) -> dict[str, str]:
        return varied("--seqjepa.include", self.include)

    def requests(self, policies: tuple[ViewPolicy, ViewPolicy]) -> tuple[ViewRequest, ...]:
        target = ViewRequest(policies[0], encode=False)
        if self.context == 2:
            return (target,)
        return (ViewRequest(policies[0], count=self.context - 2), target)

    def build(self, context: AwareContext) -> "SeqJEPAObjective":
        return SeqJEPAObjective(self, context)


class SeqJEPAObjective(AwareObjective):
    """Action encoder, transformer, predictor, and the EMA encoder of the target."""

    config: SeqJEPA

    def __init__(self, config: SeqJEPA, context: AwareContext) -> None:
        super().__init__(config)
        width = context.num_features + config.action_dim
        if width % HEADS:
            raise UsageError(
                f"--seqjepa.action-dim {config.action_dim}: with {context.num_features} features the tokens are "
                f"{width} wide, which {HEADS} heads do not divide; pass --seqjepa.action-dim "
                f"{config.action_dim + HEADS - width % HEADS}"
            )
        self.descriptors = Descriptors(config.include, context.policies[0])
        self.action = nn.Sequential(
            nn.Linear(self.descriptors.width, config.action_dim, bias=False),
            batch_norm_1d(config.action_dim, affine=False, sync=context.sync),
        )
        self.aggregate = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, HEADS, 4 * width, dropout=0.0, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        widths = [width + config.action_dim, config.hidden, context.num_features]
        self.predictor = mlp(widths, sync=context.sync)
        self.target = ema_copy(context.method.backbone)

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The loss, and by how much the prediction is closer to the target than the last context view is."""
        target = inputs.extra[-1].views
        rows, features = [inputs.params_VBP], [*inputs.features]
        if self.config.context > 2:
            further = inputs.extra[0]
            if further.features_VBD is None:
                raise ValueError("seq-JEPA needs the features of its context views")
            rows, features = [*rows, further.views.params_VBP], [*features, *further.features_VBD]
        a_VBn = self.descriptors(torch.cat([*rows, target.params_VBP]), inputs.sizes_B2)
        z_BMD = torch.stack([f_BD.float() for f_BD in features], 1)
        predicted_BD = self.predict(z_BMD, a_VBn)
        with torch.no_grad():
            true_BD = self.target(target.x_VBCHW[0]).float()
            copied = F.cosine_similarity(z_BMD[:, -1], true_BD).mean()
        similarity = F.cosine_similarity(predicted_BD, true_BD).mean()
        return AwareOutput({"seqjepa": 1 - similarity}, {"seqjepa_gain": similarity.detach() - copied})

    def predict(self, z_BMD: Tensor, a_VBn: Tensor) -> Tensor:
        """Predicted features [B, D] of the last view. a_VBn: standardised parameters of the context and this view."""
        B, M = z_BMD.shape[:2]
        actions_SA = self.action((a_VBn[1:] - a_VBn[:-1]).flatten(0, 1)).float()
        c_MBA = actions_SA.unflatten(0, (M, B))
        # The last context view has no action of its own: it is the one that is predicted.
        own_BMA = torch.cat([c_MBA[:-1], torch.zeros_like(c_MBA[:1])]).transpose(0, 1)
        tokens = torch.cat([z_BMD, own_BMA], 2)
        tokens = torch.cat([self.aggregate.expand(B, 1, -1), tokens], 1)
        g = self.transformer(tokens)[:, 0].float()
        return self.predictor(torch.cat([g, c_MBA[-1]], 1)).float()

    def embed_view(self, f_BD: Tensor) -> Tensor:
        """The features themselves, [B, D]."""
        return f_BD.float()

    def predict_view(self, z_BD: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        """Predicted features [B, D] of views with parameters a_to_Bn, from one context view with a_from_Bn."""
        return self.predict(z_BD[:, None], torch.stack([a_from_Bn, a_to_Bn]))

    def update_ema(self, method: Method, progress: float) -> None:
        """Updates the encoder of the target."""
        ema_update([self.target], [method.backbone], self.config.momentum)
