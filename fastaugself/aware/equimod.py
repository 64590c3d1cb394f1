"""EquiMod: predict a view's embedding from the plain photo and the view's parameters (Devillers and Lefort 2023,
arXiv 2211.01244), with the options of STAR (arXiv 2510.27222).

Every photo gives a plain view 0 (resized central crop) beside the two augmented ones. With features h_v, an embedding
y_v = e(h_v), standardised parameters a_v and q_v = BN(Linear(a_v)):

    yhat_v = BN(Linear([y_0; q_v])),    L = L_base + weight * NT-Xent([y_1; y_2], [yhat_1; yhat_2]),    v = 1, 2

No gradient is stopped. Published: weight 1, temperature 0.2, 128 dimensions; the parameters of the paper are those of
`include`, with the crop in pixels. Here the crop is in fractions of the photo.

STAR's options are written from a description of the paper, whose code was not available: `residual` predicts the
displacement, yhat_v = y_0 + phi([y_0; q_v]) with an MLP of three layers as wide as y, and `experts` routes: N MLPs are
shared by the base method's projector and by e, each with a softmax router of its own.

With MoCo view 2 is encoded by the momentum encoder, so its y_2 trains the heads only.

Shape suffixes: V views, B batch, D features, E embedding, K experts, n descriptor columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastaugself_kernels import ViewPolicy

from ..errors import UsageError
from ..methods.simclr import nt_xent
from ..models.heads import Projector, mlp
from ..models.norm import batch_norm_1d
from .base import (
    AwareConfig,
    AwareContext,
    AwareInputs,
    AwareObjective,
    AwareOutput,
    Setting,
    ViewRequest,
    above_zero,
    at_least,
    register_aware,
    uniform_contrast,
)
from .descriptors import Descriptors, check_parts, varied

PUBLISHED = ("blur", "color", "crop", "flip", "grayscale", "jitter", "order")


@register_aware("equimod")
@dataclass(frozen=True)
class EquiMod(AwareConfig):
    """EquiMod: predict the embedding of a view from the plain photo and the view's parameters."""

    title = "EquiMod"

    weight: float = 1.0
    """Weight of the equivariance loss; 0 = off."""
    temperature: float = 0.2
    """Temperature of its NT-Xent loss."""
    hidden: int = 2048
    """Width of the two hidden layers of the embedding head."""
    dim: int = 128
    """Width of the embedding; with experts, that of the base method's projector instead."""
    condition_dim: int = 128
    """Width of the encoded parameters."""
    include: tuple[str, ...] = PUBLISHED
    """Parameters that the prediction reads: blur, color, crop, flip, grayscale, jitter, order, rotation, solarize."""
    residual: bool = False
    """Predict the displacement from the plain view's embedding with an MLP of three layers (STAR)."""
    experts: int = 0
    """Number of expert MLPs that the base method's projector and the embedding head share, each with its own router
    (STAR: 8 on ImageNet-100, 16 on STL10); 0 = none."""
    only: bool = False
    """Train on the equivariance loss alone, without the base method's loss."""

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        above_zero(self, "temperature")
        at_least(self, 1, "hidden", "dim", "condition_dim")
        if self.experts < 0 or self.experts == 1:
            raise UsageError(f"--equimod.experts must be 0 or at least 2, got {self.experts}; pass --equimod.experts 0")
        check_parts("--equimod.include", self.include, PUBLISHED)

    @property
    def needs_projector(self) -> bool:  # type: ignore[override]
        """With experts, which replace the layers of the projector."""
        return self.experts > 0

    def augmentations(self) -> dict[str, str]:
        return varied("--equimod.include", self.include)

    def requests(self, policies: tuple[ViewPolicy, ViewPolicy]) -> tuple[ViewRequest, ...]:
        return (ViewRequest(ViewPolicy.none(policies[0].size)),)

    def check(self, setting: Setting) -> None:
        if self.experts and setting.conditioned:
            raise UsageError(
                f"--equimod.experts {self.experts} and --cassle.conditioning both replace the projector; pass "
                "--equimod.experts 0, or --cassle.conditioning none"
            )

    def projector_type(self, inner: Callable[..., Projector]) -> Callable[..., Projector]:
        return partial(RoutedProjector, self.experts) if self.experts else inner

    def build(self, context: AwareContext) -> "EquiModObjective":
        return EquiModObjective(self, context)


class RoutedProjector(Projector):
    """Experts that share the work of projector and embedding head. experts: their number. Others as for `Projector`."""

    def __init__(self, experts: int, widths: list[int], **options: Any) -> None:
        nn.Module.__init__(self)
        self.experts = nn.ModuleList(mlp(widths, **options) for _ in range(experts))
        self.invariant, self.equivariant = nn.Linear(widths[0], experts), nn.Linear(widths[0], experts)
        self.dim = widths[-1]

    def forward(self, f_BD: Tensor, condition_Bn: Tensor | None = None) -> Tensor:
        """Embeddings [B, E] for the base method's loss."""
        return self._mixture(f_BD, self.invariant)

    def embed(self, f_BD: Tensor) -> Tensor:
        """Embeddings [B, E] for the equivariance loss."""
        return self._mixture(f_BD, self.equivariant)

    def _mixture(self, f_BD: Tensor, router: nn.Module) -> Tensor:
        share_BK = router(f_BD).float().softmax(1)
        z_BKE = torch.stack([expert(f_BD).float() for expert in self.experts], 1)
        return (share_BK[:, :, None] * z_BKE).sum(1)


class EquiModObjective(AwareObjective):
    """The embedding head and the module that predicts embeddings from parameters."""

    config: EquiMod

    def __init__(self, config: EquiMod, context: AwareContext) -> None:
        super().__init__(config)
        self.batch_size = context.batch_size
        self.descriptors = Descriptors(config.include, context.policies[0])
        dim, sync = config.dim, context.sync
        if config.experts:
            routed = context.method.get_submodule("projector")
            if not isinstance(routed, RoutedProjector):
                raise ValueError(f"{type(context.method).__name__} does not build its projector with context.projector")
            dim = routed.dim
        else:
            widths = [context.num_features, config.hidden, config.hidden, dim]
            self.head = mlp(widths, last_norm="plain", sync=sync)
        self.condition = nn.Sequential(
            nn.Linear(self.descriptors.width, config.condition_dim, bias=False),
            batch_norm_1d(config.condition_dim, sync=sync),
        )
        inputs = dim + config.condition_dim
        if config.residual:  # no last batch norm: a view like the plain one has a small displacement
            self.module = mlp([inputs, dim, dim, dim], sync=sync)
        else:
            self.module = mlp([inputs, dim], last_norm="plain", sync=sync)

    def forward(self, inputs: AwareInputs) -> AwareOutput:
        """The equivariance loss, and by how much a prediction is closer to the view than the plain photo is."""
        a_VBn = self.descriptors(inputs.params_VBP, inputs.sizes_B2)
        plain_VBD = inputs.extra[0].features_VBD
        if plain_VBD is None:
            raise ValueError("EquiMod needs the features of the plain view")
        if self.config.experts:
            projector = inputs.method.get_submodule("projector")
            y0, y1, y2 = (projector.embed(f_BD) for f_BD in (plain_VBD[0], *inputs.features))  # type: ignore[operator]
        else:
            y0, y1, y2 = (self.head(f_BD).float() for f_BD in (plain_VBD[0], *inputs.features))
        true_SE = torch.cat([y1, y2])
        predicted_SE = torch.cat([self.predict(y0, a_Bn) for a_Bn in a_VBn])
        loss = nt_xent(
            F.normalize(true_SE, dim=1), F.normalize(predicted_SE, dim=1), self.config.temperature, gather=True
        )
        with torch.no_grad():
            copied = F.cosine_similarity(true_SE, torch.cat([y0, y0])).mean()
            gain = F.cosine_similarity(true_SE, predicted_SE).mean() - copied
        return AwareOutput({"equimod": loss}, {"equimod_gain": gain})

    def predict(self, y_BE: Tensor, a_Bn: Tensor) -> Tensor:
        """The predicted embeddings [B, E] of views with standardised parameters a_Bn; y_BE: of the plain view."""
        moved = self.module(torch.cat([y_BE, self.condition(a_Bn).to(y_BE.dtype)], 1)).float()
        return y_BE + moved if self.config.residual else moved

    def baseline_losses(self, params_VBP: Tensor, sizes_B2: Tensor) -> dict[str, Tensor]:
        """NT-Xent of equal embeddings."""
        return {"equimod": uniform_contrast(2 * self.batch_size, params_VBP)}

    def embed_view(self, f_BD: Tensor, projector: nn.Module | None = None) -> Tensor:
        """Embeddings [B, E] of features. projector: of the base method, needed with experts."""
        if self.config.experts:
            if projector is None:
                raise ValueError("with experts the embedding is that of the base method's projector: pass it")
            embedded: Tensor = projector.embed(f_BD)  # type: ignore[operator]
            return embedded
        return self.head(f_BD).float()

    def predict_view(self, y_BE: Tensor, a_from_Bn: Tensor, a_to_Bn: Tensor) -> Tensor:
        """Predicted embeddings [B, E] of views with parameters a_to_Bn, from embeddings of plain views.

        a_from_Bn: ignored; EquiMod predicts from the plain photo.
        """
        return self.predict(y_BE, a_to_Bn)
